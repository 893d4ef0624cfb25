# Two commands do everything: `make demo` and `make test`. Both set up a virtual environment first.
# Any Python from 3.11 on; PYTHON=... names another than the first that is found.
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3 python
ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for one in $(PYTHONS); do $$one $(ENOUGH) 2>/dev/null && echo $$one && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGES := engines export runtime benchmarks
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
# Tests marked slow (compiling every family with TensorRT-RTX, a fresh install) run where CI is set.
MARKS := $(if $(CI),,-m "not slow")

.PHONY: help demo test oldest ray gpu kit check format bench figures clean

help:
	@echo "make demo     set up, export the built-in checkpoint, draw pictures, say where they are"
	@echo "make test     set up, run the checks and the tests"
	@echo "make gpu      on a machine with an NVIDIA GPU: build plans, run the acceptance suite, write gpu-report/"
	@echo "make kit      on such a machine, with torch for CUDA: the acceptance kit, which writes kit-report/"
	@echo "make oldest   the tests on the oldest releases that pyproject.toml promises"
	@echo "make ray      the tests of serving on Ray, which installs it: real replicas, one of them killed"
	@echo "make check    lint, format and type checks only"
	@echo "make format   let ruff mend what it can"
	@echo "make bench    measure the demo on this machine: a page, and the benchmarks that need nothing else"
	@echo "make figures  read the demo's pictures back and print the table of docs/demo.md"
	@echo "make clean    remove the virtual environment and everything generated"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "sdengine needs Python 3.11 or newer, and none of these is: $(PYTHONS)" >&2; \
	  echo "install one, or name it: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# A stale build/ or egg-info would keep deleted modules alive.
$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(BIN)/python
	rm -rf build *.egg-info
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[cpu,export]"
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(BIN)/python
	rm -rf build *.egg-info
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	@touch $@ $(VENV)/demo.stamp

demo: $(VENV)/demo.stamp
	$(BIN)/sdengine demo

test: check
	$(BIN)/python -m pytest $(PYTEST_ARGS) $(MARKS)

# The oldest releases that pyproject.toml promises, in an environment of their own. What newer ones of the tests' oracles
# have given up using may warn there.
OLDEST ?= .venv-oldest
oldest:
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip
	$(OLDEST)/bin/python -m pip install --quiet -c oldest.txt -e ".[test]"
	$(OLDEST)/bin/python -m pytest -W ignore::DeprecationWarning $(PYTEST_ARGS) $(MARKS)

$(VENV)/ray.stamp: $(VENV)/test.stamp
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,ray]"
	@touch $@

ray: $(VENV)/ray.stamp
	$(BIN)/python -m pytest -rs tests/runtime/serve/cluster

# ENGINE=tensorrt for data-centre GPUs; tensorrt-rtx serves RTX ones and needs nothing but PyPI.
ENGINE ?= tensorrt-rtx

$(VENV)/gpu-$(ENGINE).stamp: $(VENV)/test.stamp
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,$(ENGINE)]"
	@touch $@

gpu: $(VENV)/gpu-$(ENGINE).stamp
	SDENGINE_GPU_REPORT=gpu-report $(BIN)/python -m pytest -m gpu -rs --junitxml=gpu-report/junit.xml tests/gpu
	@echo "gpu-report/report.json has what was measured, gpu-report/junit.xml what passed"

kit: $(VENV)/test.stamp
	$(BIN)/python -m tests.gpu.kit --out kit-report

# mypy does not follow an editable install of folders with other names, so it gets the layout as links.
check: $(VENV)/test.stamp
	@mkdir -p $(VENV)/types/sdengine
	@for p in $(PACKAGES); do ln -sfn "$(CURDIR)/$$p" $(VENV)/types/sdengine/$$p; done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(VENV)/types $(BIN)/mypy -p sdengine.engines -p sdengine.export -p sdengine.runtime -p sdengine.benchmarks.bench

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The report is of the demo's bundle, which is exported if it is not there.
bench: $(VENV)/test.stamp
	test -d sdengine-demo/bundle || $(BIN)/sdengine export demo -o sdengine-demo/bundle
	$(BIN)/sdengine bench sdengine-demo/bundle --engine onnxruntime --engine openvino --report sdengine-demo/bench --overwrite
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/solvers.py

figures: $(VENV)/test.stamp
	$(BIN)/python benchmarks/demo_figures.py

clean:
	rm -rf $(VENV) $(OLDEST) gpu-report kit-report build *.egg-info sdengine-demo
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
