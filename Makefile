# Two commands: `make demo` shows the main job, `make test` proves it. Both set up .venv on their own.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-slow lint bench clean

demo: $(VENV)/.installed
	@$(PY) scripts/demo.py

test: $(VENV)/.installed-dev lint
	$(PY) -m pytest --numprocesses auto --dist loadgroup
	@if nvidia-smi -L > /dev/null 2>&1; then MOCOOP_TEST_GPU=1 $(PY) -m pytest tests/test_gpu.py tests/test_precision.py; fi

# What takes longer than anyone waits for: long fuzzing, many kills.
test-slow: $(VENV)/.installed-dev
	$(PY) -m pytest --numprocesses auto --dist loadgroup -m slow

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: $(VENV)/.installed-dev
	$(PY) timings/run_all.py

$(VENV)/.installed: pyproject.toml requirements.txt
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing this project and its packages into $(VENV) (PyTorch is large; a few minutes)"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@$(PIP) -r requirements-dev.txt
	@touch $@

clean:
	rm -rf output .pytest_cache .mypy_cache .ruff_cache
