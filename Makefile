# make test   lint, types and tests
# make demo   the whole pipeline on a booru of its own, about 10 minutes on two cores; everything it makes is in demo/
#
# Both set up what they need in .venv first (about 8 GB, from requirements.txt). PYTHON=python3.12 picks an interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: test demo demo-quick lint format clean

test: $(VENV)/dev.done lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev.done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/run.done
	$(BIN)/python -m tests.demo

demo-quick: $(VENV)/run.done
	$(BIN)/python -m tests.demo --quick

# pip says what it does; the file is made last, so an interrupted installation is taken up again.
$(VENV)/run.done: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

$(VENV)/dev.done: $(VENV)/run.done requirements-dev.txt
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@

clean:
	rm -rf demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
