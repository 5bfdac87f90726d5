# On Debian 12, as root. Both commands install what they need.
export PYTHONPATH = bootstrap
PYTHON = .venv/bin/python
# A part of the tests: make test UNIT=tests/test_gate.py LAB=tests/lab/test_boot.py
UNIT = tests --ignore tests/lab
LAB = tests/lab

.PHONY: demo test soak lint unit lab bench peers schema lock clean

demo: .venv/ready          ## Boot one machine, and watch it become what its tags say
	@$(PYTHON) -m tests.lab.demo

test: lint unit lab        ## Everything that CI runs

soak: .venv/ready          ## Every power cut there is: minutes
	$(PYTHON) -m pytest tests -m soak

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

unit: .venv/ready .venv/servers
	$(PYTHON) -m pytest $(UNIT) -m "not soak"

lab: .venv/ready
	$(PYTHON) -m pytest $(LAB) -m "not soak"

bench: .venv/ready         ## PID 1 to 200, beside a shell script that does the same
	$(PYTHON) -m benchmarks.boot
	$(PYTHON) -m benchmarks.converged
	$(PYTHON) -m benchmarks.starts

peers: .venv/ready         ## Beside cfengine, puppet, salt and others: PEERS="--only ours,cfengine,floor --sizes 100,1000"
	$(PYTHON) -m benchmarks.peers $(PEERS)

schema: .venv/ready        ## docs/report.schema.json, from the classes
	PYTHONPATH=bootstrap $(PYTHON) -c 'import json; from pyinfra_solo.report.records import schema; print(json.dumps(schema(), indent=2))' > docs/report.schema.json

COMPILE = .venv/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links --no-config pyproject.toml

lock: .venv/ready          ## Newer dependencies: both lock files, anew
	$(COMPILE) --upgrade --output-file requirements.lock
	$(COMPILE) --upgrade --extra dev --constraint requirements.lock --output-file requirements-dev.lock

.venv/servers: .venv/ready tests/lab/prepare.sh
	@tests/lab/prepare.sh openssh-server gnupg nginx-light
	@touch $@

.venv/ready: requirements-dev.lock bootstrap/uv.txt tests/prepare.sh
	@tests/prepare.sh

clean:
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache
