# `make test` is the one test command. It needs Python 3.11 or later, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: test run readme lint types wheel pytest

# One after the other whatever -j says, pytest last: its summary closes the output.
test: $(STAMP)
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory types
	$(MAKE) --no-print-directory wheel
	$(MAKE) --no-print-directory pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

wheel: $(STAMP)
	rm -rf build dist && mkdir dist
	$(BIN)/python -m build --no-isolation > dist/log 2>&1 || { cat dist/log; exit 1; }
	$(BIN)/python tests/wheel_contents.py dist

# Two processes of one thread each: torch's threads wait for each other where cores are busy.
pytest: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# make run ARGS="--method sat --dataset cub --data-root DIR"
run: $(STAMP)
	$(BIN)/python run_benchmark.py $(ARGS)

# Puts the tables of the committed records into the README, makes the leaderboard and its page.
readme: $(STAMP)
	$(BIN)/python tests/readme.py
	$(BIN)/python run_benchmark.py table --pictures free > /dev/null

# Installed anew when the dependencies change, not on every run.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
