# Everything runs in .venv, which each target sets up by itself when it is missing or out of date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help install demo test lint docs

help:
	@echo "make install   set up .venv with everything that development needs"
	@echo "make demo      run recipes/quickstart.yaml and write its report"
	@echo "make test      everything that CI checks: ruff, mypy, pytest"
	@echo "make lint      ruff and mypy alone"
	@echo "make docs      build the documentation into site/"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) -e ".[docs]"
	touch $@

demo: install
	$(BIN)/argus run recipes/quickstart.yaml

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n 2

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict
