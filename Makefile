PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: env demo test check clean

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e ".[cohort,encoders,openslide,cucim-cpu,dev]"
	@# cuCIM's own requirements are the CUDA toolkit; on a CPU it reads slides without them.
	$(PIP) install -q -c constraints.txt --no-deps cucim-cu12
	touch $@
	@echo "Ready. To use it: . $(VENV)/bin/activate, then pixnet --help"

demo: env
	$(BIN)/pixnet demo demo

test: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist demo runs *.egg-info
