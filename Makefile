# What can be done here. `make help` lists it; docs/development.md tells more.
# Written for GNU make 3.81, which macOS has, and later.

.SILENT:
.SUFFIXES:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
AUDIT := .run/audit/bin/python
# Extra arguments: `make test PYTEST_ARGS="-k embedded"`, `make bench BENCH_ARGS=--quick`.
PYTEST_ARGS ?=
BENCH_ARGS ?=
# Programs of backend/benchmarks; the other files there are parts of them.
BENCHMARKS ?= cache client gateway journal metrics queue realtime resilience session_rate
# Storms that `make chaos` runs, a minute each: `make chaos SEEDS=3`.
SEEDS ?= 20
# Inputs of each target of `make fuzz`.
FUZZ_EXAMPLES ?= 10000
# Tests wait for servers more than they compute, so that two at a time pay even on one core.
TEST_PROCESSES ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# Servers that the tests look for on the PATH may be those of the environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup test-setup frontend run test pytest chaos fuzz lint fmt lock audit sbom dependencies bench clean

help: ## list the targets
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.installed ## make .venv with everything at its pinned version

$(VENV)/.requirements: requirements/dev.txt scripts/python-env.sh
	sh scripts/python-env.sh $(VENV) requirements/dev.txt
	touch $@

$(VENV)/.installed: $(VENV)/.requirements pyproject.toml
	echo "Installing this package, editable ..."
	$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	touch $@

frontend: ## build the front end, as far as there is one
	sh scripts/node-packages.sh build frontend/*

run: setup frontend ## start the service, the gateway and the demo on the embedded store
	exec $(BIN)/raptorflow up

test-setup: setup frontend
	sh scripts/system-packages.sh
	sh scripts/node-packages.sh install backend/tests/integration/official_clients backend/tests/browser

test: test-setup ## check everything: linters, types, floors, tests; with CI set, known vulnerabilities too
	status=0; \
	$(MAKE) lint || status=1; \
	if [ -n "$${CI:-}" ]; then $(MAKE) dependencies || status=1; fi; \
	$(MAKE) pytest || status=1; \
	exit $$status

dependencies: sbom .run/audit/.installed ## as audit and sbom; a registry without a list of advisories is told and is no failure
	$(AUDIT) scripts/audit.py || [ $$? -eq 2 ]

pytest: setup ## run the tests alone; a few that fail in the crowd get a second try on their own
	echo "Running the tests ..."
	sh scripts/tests.sh $(BIN)/python -n $(TEST_PROCESSES) $(PYTEST_ARGS)

chaos: setup ## break links and kill processes for a minute a seed; nothing acknowledged may be lost or doubled
	$(BIN)/python backend/tests/chaos/storm.py $(SEEDS)

lint: setup ## run ruff, mypy, pyright and import-linter
	sh scripts/lint.sh

fmt: setup ## format the code and repair what can be repaired
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet .

lock: setup ## resolve the versions in requirements/dev.txt anew
	echo "Resolving the newest versions that pyproject.toml allows ..."
	$(BIN)/python -m pip install -qq uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
		--custom-compile-command "make lock" \
		pyproject.toml --extra dev --output-file requirements/dev.txt

fuzz: setup ## try FUZZ_EXAMPLES new inputs on each fuzzing target; prints what came of them
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest -q --timeout 0 $(PYTEST_ARGS) backend/tests/fuzz

.run/audit/.installed: $(VENV)/.installed
	$(BIN)/python -m venv .run/audit
	$(AUDIT) -m pip install -qq pip-audit==2.10.1
	touch $@

audit: .run/audit/.installed ## look up what is known against the locked dependencies; 2 if a registry has no list of it
	$(AUDIT) scripts/audit.py

sbom: setup ## write dist/sbom.cdx.json: what this is made of, as CycloneDX
	$(BIN)/python scripts/sbom.py dist/sbom.cdx.json

bench: setup ## run every benchmark, peers beside us
	for name in $(BENCHMARKS); do \
		echo "== $$name"; $(BIN)/python "backend/benchmarks/$$name.py" $(BENCH_ARGS) </dev/null || exit 1; \
	done

clean: ## remove what setup, builds and tests have made
	rm -rf $(VENV) .run build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf frontend/*/node_modules frontend/*/dist backend/tests/integration/official_clients/node_modules backend/tests/browser/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	echo "Clean."
