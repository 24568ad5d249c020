# Two commands on a machine that has only Python >= 3.11 and make: `make pretrain` and `make test`.

PYTHON ?= python3
VENV   ?= .venv
RUN    ?= runs/quickstart
BIN    := $(VENV)/bin
SHELL  := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help environment pretrain test lint test-slow golden clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

environment: $(VENV)/installed ## a virtual environment in .venv with the tested versions

$(VENV)/installed: setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "jaxbio needs Python 3.11 or newer: make PYTHON=python3.11")'
	@echo "Installing into $(VENV) (a minute or two) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,evaluate,prepare,storage]'
	@touch $@

pretrain: environment ## synthetic recordings -> store -> training -> export -> report, in runs/quickstart
	$(BIN)/python tools/prepare_store.py --config configs/quickstart.py --source synthetic:1600 --out $(RUN)/store --workers 2
	$(BIN)/python launch/run.py --config configs/quickstart.py --config.data.store=$(RUN)/store --workdir $(RUN)
	$(BIN)/python tools/export_params.py --workdir $(RUN) --out $(RUN)/export
	@echo
	@echo "Made:   $(RUN)/store     the segments, with store_report.html (tools/inspect_store.py $(RUN)/store)"
	@echo "        $(RUN)           checkpoints, metrics.jsonl, report.html: open it in a browser"
	@echo "        $(RUN)/export    the encoder, ready for jaxbio.load_pretrained"
	@echo "Next:   source $(VENV)/bin/activate"
	@echo "        python tools/inspect_store.py $(RUN)/store"
	@echo "        python launch/run.py --config configs/quickstart.py --list_fields"
	@echo "        and your own recordings: README.md, \"Your own recordings\""

lint: environment ## ruff, formatting, types, direction of imports
	@echo "ruff ..."           && $(BIN)/ruff check .
	@echo "formatting ..."     && $(BIN)/ruff format --check .
	@echo "types ..."          && $(BIN)/mypy
	@echo "imports ..."        && $(BIN)/lint-imports --no-logo

test: lint ## lint, then every test that is not slow
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist worksteal

test-slow: environment ## the tests marked slow
	$(BIN)/python -m pytest -m "slow and not gpu" -n 2 --dist worksteal

golden: environment ## write what tests compare with after an intended change: resolved recipes, compiled steps
	$(BIN)/python tests/config/test_golden.py
	$(BIN)/python tests/planning/test_compiled_steps.py

clean: ## remove the environment and caches, keep runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
