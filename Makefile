# Two commands: `make demo` shows the main job, `make test` proves it. Both set up .venv on their own.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo test lint bench clean

demo: $(VENV)/.installed
	@$(PY) scripts/demo.py

test: $(VENV)/.installed-dev lint
	$(PY) -m pytest --numprocesses auto

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: $(VENV)/.installed
	$(PY) benchmarks/run_all.py

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages of requirements.txt into $(VENV) (PyTorch is large; a few minutes)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf output .pytest_cache .mypy_cache .ruff_cache
