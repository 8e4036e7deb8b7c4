# Two commands do everything on a fresh machine with Python 3.11 or later: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP_FLAGS := --quiet --disable-pip-version-check
# xds-protos, which is a client in the tests, brings an old copy of another package's modules: that package has to come last.
OVERWRITTEN := -c constraints.txt --no-deps --force-reinstall opentelemetry-proto
SOURCES := pyproject.toml build_hook.py $(shell find src -name '*.py' -o -name '*.lua')

.DEFAULT_GOAL := help
.PHONY: help demo test check format wheel test-wheel test-frameworks test-versions bench soak docs clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(PIP_FLAGS) --upgrade "pip>=25.1"
	SLUICEGATE_PURE=1 $(BIN)/pip install $(PIP_FLAGS) -c constraints.txt --group dev -e ".[all]"
	$(BIN)/pip install $(PIP_FLAGS) $(OVERWRITTEN)
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

wheel: dist/compiled/ready dist/pure/ready ## Build the compiled wheel and the pure one below dist/
	@ls -l dist/*/*.whl

# Where nothing can be compiled this one is pure as well, and `make test-wheel` fails.
dist/compiled/ready: $(SOURCES) | .venv/ready
	rm -rf $(@D)
	$(BIN)/pip wheel $(PIP_FLAGS) --no-deps --wheel-dir $(@D) .
	@touch $@

dist/pure/ready: $(SOURCES) | .venv/ready
	rm -rf $(@D)
	SLUICEGATE_PURE=1 $(BIN)/pip wheel $(PIP_FLAGS) --no-deps --wheel-dir $(@D) .
	@touch $@

# pip takes a wheel of the same version for the one that is installed: the second command replaces it.
.venv-wheel/ready: dist/compiled/ready constraints.txt
	test -d $(@D) || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install $(PIP_FLAGS) --upgrade "pip>=25.1"
	$(@D)/bin/pip install $(PIP_FLAGS) -c constraints.txt --group dev "$$(ls dist/compiled/*.whl)[all]"
	$(@D)/bin/pip install $(PIP_FLAGS) --no-deps --force-reinstall dist/compiled/*.whl
	$(@D)/bin/pip install $(PIP_FLAGS) $(OVERWRITTEN)
	@touch $@

test-wheel: .venv-wheel/ready ## Run all tests against the installed compiled wheel
	SLUICEGATE_EXPECT_COMPILED=1 .venv-wheel/bin/python -m pytest -o pythonpath=tests

# An environment of its own: the frameworks and servers are many, and only this test needs them.
.venv-frameworks/ready: tests/frameworks/requirements.txt
	test -d $(@D) || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install $(PIP_FLAGS) --upgrade "pip>=25.1"
	$(@D)/bin/pip install $(PIP_FLAGS) -r tests/frameworks/requirements.txt
	@touch $@

test-frameworks: .venv-frameworks/ready .venv/ready ## Ask real frameworks on real servers for every spelling of a path
	cd tests/frameworks && PYTHONPATH=../../src:.. ../../.venv-frameworks/bin/python -m pytest -c pytest.ini page.py litestar_routes.py matrix.py

# pip's cache makes a second run quick.
test-versions: ## Run what concerns each dependency with the oldest version that is supported
	test -x .venv-versions/bin/pip || $(PYTHON) -m venv .venv-versions
	.venv-versions/bin/pip install $(PIP_FLAGS) --upgrade "pip>=25.1"
	SLUICEGATE_PURE=1 .venv-versions/bin/python tests/versions.py

BENCH_KIND := $(if $(PURE),pure,compiled)
BENCH_VENV := benchmarks/.venv$(if $(PURE),-pure)

$(BENCH_VENV)/ready: dist/$(BENCH_KIND)/ready benchmarks/requirements.txt
	test -d $(@D) || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install $(PIP_FLAGS) "$$(ls dist/$(BENCH_KIND)/*.whl)[cli,redis,rules,service,metrics,otel]" -r benchmarks/requirements.txt
	$(@D)/bin/pip install $(PIP_FLAGS) --no-deps --force-reinstall dist/$(BENCH_KIND)/*.whl
	@touch $@

bench: $(BENCH_VENV)/ready ## Measure beside the peers (ARGS=--quick, ARGS=--scale; PURE=1: without compiled modules)
	$(BENCH_VENV)/bin/python benchmarks/bench.py $(ARGS)

soak: .venv/ready ## Run the long tests and the floods
	$(BIN)/python benchmarks/memory_flood.py
	$(BIN)/python benchmarks/redis_faults.py
	$(BIN)/python benchmarks/redis_soak.py
	$(BIN)/python benchmarks/stream_soak.py
	SLUICEGATE_LONG=1 $(BIN)/python -m pytest --timeout=1800 -o faulthandler_timeout=2000

docs: .venv/ready ## Build the pages into site/
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt --group docs
	$(BIN)/mkdocs build --quiet --strict

clean: ## Remove what the other targets made
	rm -rf .venv .venv-wheel .venv-frameworks .venv-versions benchmarks/.venv benchmarks/.venv-pure dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
