# Two commands do everything on a fresh machine with Python 3.11 or later: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench soak docs clean

help: ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --group dev -e ".[all]"
	@touch $@

demo: .venv/ready ## Protect a small HTTP application and send it good and bad clients
	$(BIN)/sluicegate demo

test: .venv/ready ## Run all tests
	$(BIN)/python -m pytest

check: .venv/ready ## Lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

format: .venv/ready ## Lay out the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmarks/.venv/ready: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/pip install --quiet --disable-pip-version-check -e ".[redis,service]" -r benchmarks/requirements.txt
	@touch $@

bench: benchmarks/.venv/ready ## Measure beside the peers (ARGS=--quick for a first look, ARGS=--scale for all)
	benchmarks/.venv/bin/python benchmarks/bench.py $(ARGS)

soak: .venv/ready ## Run the long tests and the floods
	$(BIN)/python benchmarks/memory_flood.py
	$(BIN)/python benchmarks/redis_faults.py
	$(BIN)/python benchmarks/redis_soak.py
	SLUICEGATE_LONG=1 $(BIN)/python -m pytest --timeout=1800

docs: .venv/ready ## Build the pages into site/
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --group docs
	$(BIN)/mkdocs build --quiet --strict

clean: ## Remove what the other targets made
	rm -rf .venv benchmarks/.venv site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
