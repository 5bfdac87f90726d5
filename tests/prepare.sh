#!/bin/sh
# What tests and the demo need on a Debian 12 machine: packages, and .venv from requirements-dev.lock.
# Run by make. Does nothing that is done already.
set -eu
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive

tests/lab/prepare.sh
if ! /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null; then
    apt-get install -y --no-install-recommends python3-venv
fi
tools=.venv/uv
if [ ! -x "$tools/bin/uv" ]; then
    rm -rf .venv
    /usr/bin/python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --require-hashes -r bootstrap/uv.txt
fi
[ -x .venv/bin/python ] || "$tools/bin/uv" venv --quiet --allow-existing --python /usr/bin/python3 .venv
"$tools/bin/uv" pip sync --quiet --require-hashes --python .venv/bin/python requirements-dev.lock
touch .venv/ready
