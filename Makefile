# Every target sets itself up. `make setup` builds .venv with everything the others need and does nothing when it is current.
#   make demo | shell | test | test-slow | bench | wheel | format | clean
# PYTHON     the interpreter .venv is made from (3.10 to 3.13)
# REPOSITORY address of the repository's page, for the links and pictures in the wheel's description
# PIP_ARGS   extra arguments for the installation of torch and torchvision, for instance the index of the CPU-only builds
PYTHON ?= python3
PIP_ARGS ?=
REPOSITORY ?=
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.current
JOBS ?= 2
# Tests run one process a core; a thread pool in each of them would only fight over the cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: setup demo shell test test-slow lint types bench wheel format clean
.DEFAULT_GOAL := demo

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" PIP_ARGS="$(PIP_ARGS)" sh scripts/setup.sh
	@touch $(STAMP)

demo: setup
	@$(VENV)/bin/amodal demo

# A shell in which `amodal` and `python` are those of .venv; `exit` leaves it.
shell: setup
	@. $(VENV)/bin/activate && exec "$${SHELL:-/bin/sh}"

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: setup
	$(PY) -m mypy

test: lint types
	$(ONE_THREAD) $(PY) -m pytest -m "not slow" -n $(JOBS) --dist loadfile

test-slow: setup
	$(ONE_THREAD) $(PY) -m pytest -m slow -n $(JOBS) --dist load --durations=15

bench: setup
	$(PY) -m benchmarks

wheel: setup
	AMODAL_REPOSITORY="$(REPOSITORY)" $(PY) -m hatchling build -t wheel

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
