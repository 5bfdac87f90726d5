# On Debian 12, as root. Each target installs what it needs; `make help` lists them.
export PYTHONPATH = bootstrap
PYTHON = .venv/bin/python
# A part of the tests: make test UNIT=tests/test_gate.py LAB=tests/lab/test_boot.py
UNIT = tests --ignore tests/lab
LAB = tests/lab
PARTS = lint unit lab

# Costs are said before anything is installed.
.NOTPARALLEL:
.PHONY: help demo test soak lint unit lab bench peers schema lock clean root
.DEFAULT_GOAL = help

help:                      ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' Makefile
	@echo "Each says first how long it takes, what it downloads and installs, and how to remove that."

demo: root say-demo .venv/ready ## Boot one machine, and watch it become what its tags say
	@$(PYTHON) -m tests.lab.demo

test: root say-test        ## Run all that CI runs: lint, unit and lab, each one even when another has failed
	@failed=; for part in $(PARTS); do COSTS_ARE_KNOWN=yes $(MAKE) --no-print-directory $$part || failed="$$failed $$part"; done; \
	if [ -n "$$failed" ]; then echo "make test: failed:$$failed" >&2; exit 1; fi

lint: say-lint .venv/ready ## Check style, types and the floors of the package
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	@if grep -q '^\[tool.importlinter' pyproject.toml; then set -x; .venv/bin/lint-imports; fi

unit: root say-unit .venv/ready .venv/servers ## Test single modules: UNIT=tests/test_gate.py for a part
	$(PYTHON) -m pytest $(UNIT) -m "not soak"

lab: root say-lab .venv/ready ## Test booted machines: LAB=tests/lab/test_boot.py for a part
	$(PYTHON) -m pytest $(LAB) -m "not soak"

soak: root say-soak .venv/ready ## Cut the power, and kill the run, at every moment of a boot
	$(PYTHON) -m pytest tests -m soak

bench: root say-bench .venv/ready ## Measure a boot, from PID 1 to 200, beside a shell script that does the same
	$(PYTHON) -m benchmarks.boot
	$(PYTHON) -m benchmarks.converged
	$(PYTHON) -m benchmarks.starts

peers: root say-peers .venv/ready ## Measure beside cfengine, puppet and others: PEERS="--only ours,floor --sizes 100,1000"
	$(PYTHON) -m benchmarks.peers $(PEERS)

schema: say-schema .venv/ready ## Write docs/report.schema.json from the classes
	$(PYTHON) -c 'import json; from pyinfra_solo.report.records import schema; print(json.dumps(schema(), indent=2))' > docs/report.schema.json

COMPILE = .venv/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links --no-config pyproject.toml

lock: say-lock .venv/ready ## Write both lock files with the newest dependencies
	$(COMPILE) --upgrade --output-file requirements.lock
	$(COMPILE) --upgrade --extra dev --constraint requirements.lock --output-file requirements-dev.lock

clean:                     ## Remove .venv and the linters' caches
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

say-%:
	@tests/costs.sh $*

root:
	@[ "$$(id -u)" = 0 ] || { echo "make $(MAKECMDGOALS): run it as root: it makes accounts, and containers with networks of their own." >&2; exit 1; }

.venv/servers: .venv/ready tests/lab/prepare.sh
	@tests/lab/prepare.sh openssh-server gnupg nginx-light
	@touch $@

.venv/ready: requirements-dev.lock bootstrap/uv.txt tests/prepare.sh
	@tests/prepare.sh
