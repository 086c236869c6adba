# The toolkit's chores. The scripts themselves need no make; on Windows see the README.
#
# What needs packages sets them up in .venv first, about 8 GB. PYTHON=python3.12 picks an interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help test lint format demo demo-quick bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{ printf "make %-12s %s\n", $$1, $$2 }'

test: $(VENV)/dev.done lint ## lint, types and tests, 12 minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/dev.done ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev.done ## what ruff can put right by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/run.done ## the whole pipeline on a booru of its own, 10 minutes on two cores; everything it makes is in demo/
	$(BIN)/python -m examples.demo

demo-quick: $(VENV)/run.done ## the same with so few drawings that nothing can be learnt
	$(BIN)/python -m examples.demo --quick

bench: $(VENV)/dev.done ## every benchmark that this machine can run, half an hour on two cores; `make bench ARGS=--quick` tries them
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove demo/ and the tools' caches
	rm -rf demo .mypy_cache .pytest_cache .ruff_cache .hypothesis

# pip says what it does; the file is made last, so an interrupted installation is taken up again.
$(VENV)/run.done: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

$(VENV)/dev.done: $(VENV)/run.done requirements-dev.txt
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@
