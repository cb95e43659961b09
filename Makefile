PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

LABEL := .venv-label
# What `make label` serves: slides in a folder, and a trained run. The defaults are what `make demo` leaves.
STUDIES ?= demo/phantom/slides
RUN ?= demo/run
PORT ?= 8000
# Other sites whose pages may ask, "http://localhost:3000 ..."; none by default.
ORIGINS ?=
# true lets the model run code of its own.
TRUST ?=

.PHONY: env demo test fuzz label label-env test-label check clean

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e ".[cohort,encoders,nifti,openslide,parquet,report,cucim-cpu,dev]"
	@# cuCIM's own requirements are the CUDA toolkit; on a CPU it reads slides without them.
	$(PIP) install -q -c constraints.txt --no-deps cucim-cu12
	touch $@
	@echo "Ready. To use it: . $(VENV)/bin/activate, then pixnet --help"

demo: env
	$(BIN)/pixnet demo demo

# The longest files first, so that neither of the two waits for the other at the end.
LONGEST := tests/test_workflow.py tests/test_painted.py tests/test_learning.py tests/test_ranks.py tests/test_wheel.py tests/test_zoo.py tests/benchmarks

test: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(LONGEST) tests

# Of a nightly run: damaged and strange inputs, a second or two each, two at once. Others: make fuzz SEEDS="300 600".
SEEDS ?= 0 300

fuzz: env
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz --seeds $(SEEDS)

label-env: $(LABEL)/.ready

$(LABEL)/.ready: pyproject.toml constraints.txt bundle/integrations/monai_label/requirements.txt bundle/integrations/monai_label/no_deps.txt
	$(PYTHON) -m venv $(LABEL)
	$(LABEL)/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt torch
	$(LABEL)/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt \
		-e ".[nifti,openslide,cucim-cpu]" pytest pytest-timeout -r bundle/integrations/monai_label/requirements.txt
	$(LABEL)/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt --no-deps \
		cucim-cu12 -r bundle/integrations/monai_label/no_deps.txt
	touch $@

label: label-env
	$(LABEL)/bin/python -m monailabel.main start_server --app bundle/integrations/monai_label --studies "$(STUDIES)" \
		--conf run "$(abspath $(RUN))" --conf origins "$(ORIGINS)" \
		--conf trust "$(TRUST)" --host 127.0.0.1 --port $(PORT)

test-label: label-env
	OMP_NUM_THREADS=1 $(LABEL)/bin/python -m pytest tests/bundle/integrations/monai_label -s

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m benchmarks.tables --check

clean:
	rm -rf $(VENV) $(LABEL) build dist demo runs *.egg-info
