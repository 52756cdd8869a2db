# Everything a person does with the suite, by name. `make` alone lists it.
# PYTHON chooses the interpreter of the virtual environment: make run PYTHON=python3.12
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
TESTS := $(BIN)/python -m pytest
# With a suite running, its addresses; without one, the defaults of config.yml.
WITH_ENV := set -a; [ ! -f var/env ] || . var/env; set +a;
# A person calls services, and needs no other permission in the broker.
AS_OPERATOR := $(WITH_ENV) [ -z "$$OPERATOR_AMQP_URI" ] || export AMQP_URI="$$OPERATOR_AMQP_URI";

.PHONY: help run demo docs release-api fuzz stop test test-unit test-service test-e2e lint load bench bench-quick profile overload remedies chaos chaos-quick hot-product migrate shell clean requirements audit sbom venv model check-consistency

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(STAMP) ## the whole suite on this machine, servers included; Ctrl-C stops it
	@exec $(BIN)/python -m deploy.local run

demo: $(STAMP) ## the four stories of an order, told beside a running suite or one started for it
	@exec $(BIN)/python -m deploy.local demo

stop: ## end the suite that `make run` started in this clone
	@[ ! -x $(BIN)/python ] || $(BIN)/python -m deploy.local stop

test: $(STAMP) ## every test, real servers included, in three processes at once (TEST_WORKERS=1 for one)
	@exec $(BIN)/python -m tests.run $(ARGS)

test-unit: $(STAMP) ## only the tests that need no server (seconds)
	@$(TESTS) tests/unit

test-service: $(STAMP) ## each service in a real container on real servers
	@$(TESTS) tests/service

test-e2e: $(STAMP) ## the real processes over HTTP: the stories and the saga's hazards
	@$(TESTS) tests/e2e

fuzz: $(STAMP) ## 100,000 generated requests at a suite of its own, held against openapi.json (ARGS="--help" tells more)
	@exec $(BIN)/python -W ignore -m qa.fuzz $(ARGS)

model: $(STAMP) ## every interleaving of the saga, a million states and more, then the mutants (minutes, gigabytes)
	@$(BIN)/python -m qa.model --states 1000000
	@$(BIN)/python -m qa.model --mutants

AUDIT := var/audit
PIP_AUDIT := $(AUDIT)/bin/pip-audit --no-deps --disable-pip --timeout 5 --requirement requirements-dev.txt

lint: $(STAMP) $(AUDIT)/.complete ## ruff, mypy, the walls between the modules, known vulnerabilities where they can be asked for
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@timeout 120 $(PIP_AUDIT) > $(AUDIT)/report 2>&1 || ! grep --quiet "known vulnerabilit" $(AUDIT)/report \
		|| { cat $(AUDIT)/report; exit 1; }
	@grep --quiet "could not be audited\|Traceback" $(AUDIT)/report && echo "Known vulnerabilities: none, but not all could" \
		"be asked for, see $(AUDIT)/report; make audit insists." || echo "Known vulnerabilities: none"

$(AUDIT)/.complete: requirements-audit.txt
	@$(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/pip install --quiet --require-hashes --requirement $< && touch $@

audit: $(AUDIT)/.complete ## known vulnerabilities of what is pinned: asks a public service, and fails where it is not told
	@$(PIP_AUDIT) --strict || { echo \
		"Not clean, or not told: 'could not be audited' means that the service gave no answer." >&2; exit 1; }

sbom: $(AUDIT)/.complete ## var/sbom.json: what the image installs, as CycloneDX, from requirements.txt and its hashes
	@PYTHONWARNINGS=ignore $(AUDIT)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
		--output-file var/sbom.json requirements.txt
	@echo "var/sbom.json"

remedies: $(STAMP) ## take every remedy out of a copy: does its test turn red? (ARGS="H7 15" for some of them)
	@exec $(BIN)/python -m qa.remedies $(ARGS)

BENCH := var/bench-venv
$(BENCH)/.complete: requirements-bench.txt
	@$(PYTHON) -m venv --clear $(BENCH) && $(BENCH)/bin/pip install --quiet --require-hashes --requirement $< && touch $@

bench: $(STAMP) $(BENCH)/.complete ## how fast, beside stock Nameko, FastStream and the floor; two hours (ARGS="--help" tells more)
	@exec $(BIN)/python -W ignore -m qa.bench $(ARGS)

bench-quick: $(STAMP) $(BENCH)/.complete ## the same once and shortly, under two minutes: for a first look, not for a claim
	@exec $(BIN)/python -W ignore -m qa.bench --quick $(ARGS)

profile: $(STAMP) $(BENCH)/.complete ## a flame graph of each service under load, in var/profile (ARGS="--help" tells more)
	@exec $(BIN)/python -W ignore -m qa.bench.flame_graphs $(ARGS)

load: $(STAMP) ## many concurrent orders, then the invariants counted (ARGS="--help" tells more)
	@$(WITH_ENV) exec $(BIN)/python -m qa.load $(ARGS)

chaos: $(STAMP) ## faults on a running suite of its own, half an hour (ARGS="--help" tells more)
	@exec $(BIN)/python -m qa.chaos $(or $(ARGS),--faults 500 --orders 20000 --each 3)

chaos-quick: $(STAMP) ## the same in ten minutes, every kind of fault at least three times
	@exec $(BIN)/python -m qa.chaos --minutes 9 --each 3 --at-once 6 --pause 2 $(ARGS)

hot-product: $(STAMP) ## 500 buyers at once for 100 units, a hundred rounds: a quarter of an hour
	@exec $(BIN)/python -m qa.chaos.hot_product $(ARGS)

overload: $(STAMP) ## twice what the running suite can carry, then how it recovers (ARGS="--help" tells more)
	@$(WITH_ENV) exec $(BIN)/python -m qa.overload $(ARGS)

migrate: $(STAMP) ## bring every database to the newest revision
	@$(WITH_ENV) exec $(BIN)/python -m deploy.migrate

shell: $(STAMP) ## a Python prompt that calls the services: n.rpc.orders.get_order(...)
	@$(AS_OPERATOR) exec $(BIN)/nameko shell --config config.yml

check-consistency: $(STAMP) ## does everything add up? waits for rest, then counts what breaks an invariant
	@$(AS_OPERATOR) exec $(BIN)/python -m deploy.consistency $(ARGS)

docs: $(STAMP) ## write the events, their schemas, the API's document and requests in docs/ anew from the code
	@$(BIN)/python -m docs.architecture.generate_events
	@$(BIN)/python -m docs.generate_api

release-api: docs ## at a release: from now on, clients rely on the API as it is (docs/openapi-released.json)
	@$(BIN)/python -m docs.generate_api --release

clean: stop ## remove the environment, the data, the logs: back to a fresh clone
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m deploy.local clean; fi
	@rm -rf $(VENV) var .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One resolution for every Python that pyproject.toml allows, with a hash for each of their files.
COMPILE = var/compile/bin/uv --quiet pip compile pyproject.toml --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --system-certs
requirements: ## compile requirements*.txt anew from pyproject.toml (ARGS=--upgrade for newer ones)
	@[ -x var/compile/bin/uv ] || { $(PYTHON) -m venv var/compile && var/compile/bin/pip install --quiet uv==0.13.9; }
	$(COMPILE) $(ARGS) --output-file requirements.txt
	$(COMPILE) $(ARGS) --extra dev --constraint requirements.txt --output-file requirements-dev.txt
	$(subst pyproject.toml,,$(COMPILE)) $(ARGS) --group audit --output-file requirements-audit.txt
	$(subst pyproject.toml,,$(COMPILE)) $(ARGS) --group bench --output-file requirements-bench.txt

venv: $(STAMP) ## only the virtual environment in .venv
$(STAMP): requirements-dev.txt deploy/local/venv.sh
	@deploy/local/venv.sh $(PYTHON)
	@touch $@
