# Python 3.11 to 3.13 with venv, and make: nothing else is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
BENCH := .venv-bench

.PHONY: demo test bench setup lint lock clean

demo: setup  ## the whole journey on a simulated CRM
	$(BIN)/stepin demo

bench: $(BENCH)/.ready  ## side by side with other packages: docs/benchmarks.md (hours; see --help)
	$(BENCH)/bin/python -m benchmarks $(ARGS)

setup: $(VENV)/.run-ready  ## .venv with the stepin command

test: $(VENV)/.test-ready lint  ## style, types, import contracts, tests; those of servers alone, for they are timed
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --ignore tests/serving
	$(BIN)/python -m pytest tests/serving

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.run-ready: requirements/run.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/run.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.test-ready: requirements/test.txt $(VENV)/.run-ready
	$(PIP) install --require-hashes -r requirements/test.txt
	touch $@

$(BENCH)/.ready: requirements/bench.txt pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r requirements/bench.txt
	$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation -e .
	touch $@

lock:  ## renew the locks (needs uv): hashes, every platform, no addresses
	uv pip compile pyproject.toml requirements/build.in --extra train --extra postgres $(LOCK) -o requirements/run.txt
	uv pip compile pyproject.toml requirements/build.in --extra test -c requirements/run.txt $(LOCK) -o requirements/test.txt
	uv pip compile pyproject.toml requirements/build.in requirements/bench.in --extra train -c requirements/run.txt $(LOCK) $(NO_GPU) -o requirements/bench.txt

LOCK = --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links
# xgboost names it, but without a graphics card never loads it: 300 MB less (so bench is installed with --no-deps).
NO_GPU = --no-emit-package nvidia-nccl-cu12 --no-emit-package nvidia-nccl-cu13

clean:
	rm -rf $(VENV) $(BENCH) .bench .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
