#!/bin/sh
# Installs what tests and the demo need on Debian 12: packages, and .venv from requirements-dev.lock.
# Run by make. Does nothing that is done already.
set -eu
cd "$(dirname "$0")/.."
. tests/busy.sh

tests/lab/prepare.sh
tools=.venv/uv
wanted=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' bootstrap/uv.txt)
if [ "$("$tools/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$wanted" ]; then
    rm -rf .venv
    busy "prepare: .venv with pip" /usr/bin/python3 -m venv "$tools"
    busy "prepare: uv $wanted, into .venv" \
        "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r bootstrap/uv.txt
fi
[ -x .venv/bin/python ] || "$tools/bin/uv" venv --quiet --allow-existing --python /usr/bin/python3 .venv
busy "prepare: Python packages of requirements-dev.lock, into .venv" \
    "$tools/bin/uv" pip sync --quiet --require-hashes --python .venv/bin/python requirements-dev.lock
touch .venv/ready
