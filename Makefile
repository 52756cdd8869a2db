# All commands of the project. `make` without a target lists them.
# PYTHON chooses the interpreter of the virtual environment: make run PYTHON=python3.12
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
TESTS := $(BIN)/python -m pytest
# Nothing is built, so no code of a package runs while it is installed.
WHEELS := install --quiet --require-hashes --only-binary :all:
# The addresses of the last `make run`, else the defaults of config.yml.
WITH_ENV := set -a; [ ! -f var/env ] || . var/env; set +a;
# The operator's user of the broker may call services and do nothing else.
AS_OPERATOR := $(WITH_ENV) [ -z "$$OPERATOR_AMQP_URI" ] || export AMQP_URI="$$OPERATOR_AMQP_URI";

.PHONY: help run demo docs image-digests release-api fuzz stop test test-unit test-service test-e2e test-plain lint load bench bench-quick profile overload search-speed import-speed staleness import remedies chaos chaos-quick hot-product bench-streams bench-webhooks migrate shell clean requirements audit sbom clients console venv model check-consistency

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(STAMP) ## start the whole suite on this machine, servers included; Ctrl-C stops it
	@$(BIN)/python -m deploy.local.node_packages console --optional
	@exec $(BIN)/python -m deploy.local run

console: $(STAMP) ## install the packages of the console from npm into console/node_modules (make run and make test do it)
	@exec $(BIN)/python -m deploy.local.node_packages console

demo: $(STAMP) ## show four orders from start to end, on the running suite, or on one that it starts
	@exec $(BIN)/python -m deploy.local demo

stop: ## stop the suite that `make run` started in this clone
	@[ ! -x $(BIN)/python ] || $(BIN)/python -m deploy.local stop

test: $(STAMP) ## run every test, on its own real servers, in four processes at once (TEST_WORKERS=1 for one)
	@$(BIN)/python -m deploy.local.node_packages console
	@exec $(BIN)/python -m tests.run $(ARGS)

test-unit: $(STAMP) ## run only the tests that need no server (a minute)
	@$(TESTS) tests/unit

test-service: $(STAMP) ## run the tests of each service in a real container on real servers
	@$(TESTS) tests/service

test-e2e: $(STAMP) ## run the tests of the real processes over HTTP
	@$(TESTS) tests/e2e

test-plain: $(STAMP) ## run tests/service and tests/e2e without the overrides of py-amqp and Nameko (AMQP_WIRE=plain)
	@AMQP_WIRE=plain SERVICE_CONTAINER_CLS=nameko.containers.ServiceContainer $(TESTS) tests/service tests/e2e

fuzz: $(STAMP) ## send 100,000 generated requests and compare the responses with openapi.json (options: ARGS="--help")
	@exec $(BIN)/python -W ignore -m qa.fuzz $(ARGS)

model: $(STAMP) ## explore every interleaving of the saga, over a million states, then seeded bugs (minutes, gigabytes)
	@$(BIN)/python -m qa.model --states 1000000
	@$(BIN)/python -m qa.model --mutants

AUDIT := var/audit
PIP_AUDIT := $(AUDIT)/bin/pip-audit --no-deps --disable-pip --timeout 5 --requirement requirements-dev.txt

lint: $(STAMP) $(AUDIT)/.complete ## ruff, mypy, import-linter, tsc and ESLint for the console, and known vulnerabilities if the public service can be reached
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m qa.import_contracts
	@$(BIN)/python -m deploy.local.node_packages console
	@$(BIN)/python -m deploy.local.lint_console
	@timeout 120 $(PIP_AUDIT) > $(AUDIT)/report 2>&1 || ! grep --quiet "known vulnerabilit" $(AUDIT)/report \
		|| { cat $(AUDIT)/report; exit 1; }
	@grep --quiet "could not be audited\|Traceback" $(AUDIT)/report && echo "Known vulnerabilities: none found, but not every" \
		"package could be checked, see $(AUDIT)/report; make audit fails in this case." || echo "Known vulnerabilities: none"

$(AUDIT)/.complete: requirements-audit.txt
	@$(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/pip $(WHEELS) --requirement $< && touch $@

audit: $(AUDIT)/.complete ## ask a public service for known vulnerabilities of the pinned packages; fail if it does not respond
	@$(PIP_AUDIT) --strict || { echo \
		"Vulnerable or unknown: 'could not be audited' means that the service did not respond." >&2; exit 1; }

sbom: $(AUDIT)/.complete ## write var/sbom.json: the packages of the image, as CycloneDX, from requirements.txt and its hashes
	@PYTHONWARNINGS=ignore $(AUDIT)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
		--output-file var/sbom.json requirements.txt
	@echo "var/sbom.json"

remedies: $(STAMP) ## remove each remedy from a copy of the code; its test must fail (ARGS="H7 15" for some of them)
	@exec $(BIN)/python -m qa.remedies $(ARGS)

BENCH := var/bench-venv
$(BENCH)/.complete: requirements-bench.txt
	@$(PYTHON) -m venv --clear $(BENCH) && $(BENCH)/bin/pip $(WHEELS) --requirement $< && touch $@

bench: $(STAMP) $(BENCH)/.complete ## compare the speed with unmodified Nameko, FastStream and a lower bound; two hours (options: ARGS="--help")
	@exec $(BIN)/python -W ignore -m qa.bench $(ARGS)

bench-quick: $(STAMP) $(BENCH)/.complete ## a short benchmark, under two minutes: a first look, not a result
	@exec $(BIN)/python -W ignore -m qa.bench --quick $(ARGS)

profile: $(STAMP) $(BENCH)/.complete ## draw a flame graph of each service under load, in var/profile (options: ARGS="--help")
	@exec $(BIN)/python -W ignore -m qa.bench.flame_graphs $(ARGS)

load: $(STAMP) ## place many orders at once on the running suite, then check the invariants (options: ARGS="--help")
	@$(WITH_ENV) exec $(BIN)/python -m qa.load $(ARGS)

chaos: $(STAMP) ## inject crashes, then slowness into its own suite, an hour and a half (options: ARGS="--help")
	@exec $(BIN)/python -m qa.chaos $(or $(ARGS),--faults 500 --orders 20000 --each 3 --slow 500)

chaos-quick: $(STAMP) ## ten minutes of it, every kind of crash at least three times
	@exec $(BIN)/python -m qa.chaos --minutes 9 --each 3 --at-once 6 --pause 2 $(ARGS)

hot-product: $(STAMP) ## 500 buyers at once for 100 units, a hundred rounds: a quarter of an hour
	@exec $(BIN)/python -m qa.chaos.hot_product $(ARGS)

bench-webhooks: $(STAMP) ## measure how many webhooks a second one notifications process delivers, under a minute (options: ARGS="--help")
	@exec $(BIN)/python -W ignore -m qa.bench_webhooks $(ARGS)

bench-streams: $(STAMP) ## the latency of GET /orders/{id} with 0 and with 1,000 idle streams, in turns, on the running suite (options: ARGS="--help")
	@$(WITH_ENV) exec $(BIN)/python -m qa.streams $(ARGS)

search-speed: $(STAMP) ## p50 and p99 of searches among 100,000 products, in a PostgreSQL of its own (options: ARGS="--help")
	@exec $(BIN)/python -W ignore -m qa.search_speed $(ARGS)

import-speed: $(STAMP) ## time and memory of an import of 100,000 products, on its own suite (options: ARGS="--help")
	@exec $(BIN)/python -W ignore -m qa.import_speed $(ARGS)

staleness: $(STAMP) ## readers and writers of products race for a minute; print how old a read can be
	@STALENESS_SECONDS=60 $(TESTS) tests/service/gateway/test_cached_products.py -k race -s

import: $(STAMP) ## import a file of products into the running suite: make import FILE=products.csv (options: ARGS="--help")
	@$(WITH_ENV) exec $(BIN)/python docs/examples/import_file.py $(FILE) $(ARGS)

overload: $(STAMP) ## send twice the load that the running suite can carry, then measure recovery (options: ARGS="--help")
	@$(WITH_ENV) exec $(BIN)/python -m qa.overload $(ARGS)

migrate: $(STAMP) ## bring every database to the newest revision
	@$(WITH_ENV) exec $(BIN)/python -m deploy.migrate

shell: $(STAMP) ## a Python prompt that calls the services: n.rpc.orders.get_order(...)
	@$(AS_OPERATOR) exec $(BIN)/python -W ignore -m deploy.shell

check-consistency: $(STAMP) ## wait until nothing is in flight, then count the violations of each invariant
	@$(AS_OPERATOR) exec $(BIN)/python -m deploy.consistency $(ARGS)

docs: $(STAMP) ## regenerate docs/ from the code: events, their schemas, the OpenAPI document, requests
	@$(BIN)/python -m docs.architecture.generate_events
	@$(BIN)/python -m docs.generate_api

image-digests: ## renew deploy/images.env, which pins the base images of compose to the digests of their tags
	@exec deploy/image-digests.sh

release-api: docs ## at a release: record the API that later versions are compared with (docs/openapi-released.json)
	@$(BIN)/python -m docs.generate_api --release

clean: stop ## stop the suite, then remove the virtual environment, data and logs
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m deploy.local clean; fi
	@rm -rf $(VENV) var .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One resolution for every Python version that pyproject.toml allows, with a hash of each file.
COMPILE = var/compile/bin/uv --quiet pip compile pyproject.toml --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --system-certs
requirements: ## recompile requirements*.txt from pyproject.toml (ARGS=--upgrade for newer versions)
	@[ -x var/compile/bin/uv ] || { $(PYTHON) -m venv var/compile && var/compile/bin/pip $(WHEELS) --requirement requirements-compile.txt; }
	$(subst pyproject.toml,,$(COMPILE)) $(ARGS) --group compile --output-file requirements-compile.txt
	$(COMPILE) $(ARGS) --output-file requirements.txt
	$(subst pyproject.toml,,$(COMPILE)) $(ARGS) --group build --constraint requirements.txt --output-file requirements-build.txt
	$(COMPILE) $(ARGS) --extra dev --constraint requirements.txt --output-file requirements-dev.txt
	$(subst pyproject.toml,,$(COMPILE)) $(ARGS) --group audit --output-file requirements-audit.txt
	$(subst pyproject.toml,,$(COMPILE)) $(ARGS) --group bench --output-file requirements-bench.txt
	$(subst pyproject.toml,,$(COMPILE)) $(ARGS) --group clients --output-file requirements-clients.txt
	$(subst pyproject.toml,,$(COMPILE)) $(ARGS) --group node --output-file requirements-node.txt

clients: $(STAMP) ## install the generators of clients and the linters of openapi.json into var/clients (make test does it)
	@exec $(BIN)/python -W ignore -m tests.clients.install

venv: $(STAMP) ## create only the virtual environment in .venv
$(STAMP): requirements-dev.txt requirements-build.txt deploy/local/venv.sh
	@deploy/local/venv.sh $(PYTHON)
	@touch $@
