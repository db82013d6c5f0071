# Two commands for a stranger: `make demo` and `make test`. For those who change the code: `make check`, `make bench`.
# Everything runs in .venv, made on first use; POPOTO_PYTHON chooses the interpreter (3.10 or newer).

POPOTO_PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
WORKERS ?= 2

.PHONY: demo test test-cluster check format lint types bench docs clean

demo: $(VENV)/.demo
	@$(BIN)/popoto demo

test: $(VENV)/.test
	@$(BIN)/python -m pytest -n $(WORKERS)

# The tests of models, queries, memory and recipes again, on three masters on loopback (docs/cluster.md).
test-cluster: $(VENV)/.test
	@POPOTO_TEST_CLUSTER=1 $(BIN)/python -m pytest -n $(WORKERS) tests/orm tests/memory tests/recipes tests/reference

# What the CI runs: format, lint, strict types, tests on the embedded Valkey, tests on redis-server.
check: $(VENV)/.dev
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(MAKE) --no-print-directory test
	@if command -v redis-server >/dev/null; then POPOTO_TEST_ENGINE=redis $(MAKE) --no-print-directory test; \
	  else echo "redis-server is not installed: tests ran on the embedded Valkey only"; fi

format: $(VENV)/.dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: $(VENV)/.dev
	@$(BIN)/ruff check .

types: $(VENV)/.dev
	@$(BIN)/mypy

bench: $(VENV)/.test
	@$(BIN)/python -m benchmarks

docs: $(VENV)/.dev
	@$(BIN)/mkdocs build --strict --quiet

clean:
	@rm -rf $(VENV) site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(POPOTO_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "popoto needs Python 3.10 or newer: make POPOTO_PYTHON=/path/to/python3"; exit 1; }
	@$(POPOTO_PYTHON) -m venv $(VENV) || \
	  { echo "no virtual environment could be made: on Debian, apt-get install python3-venv"; exit 1; }

$(VENV)/.demo: $(BIN)/python pyproject.toml
	@$(PIP) -e '.[embedded,cli]'
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml
	@$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.test $(VENV)/.demo
