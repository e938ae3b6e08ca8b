# Every target sets up what it needs; `make help` reads the comments after the targets.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test setup data train predict visualize lint bench docs clean
.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 20

demo: $(STAMP) ## Train, evaluate, promote and serve a model of embedded synthetic moths
	@$(BIN)/python run.py --pipeline training --config demo

test: lint ## Lint, types and every test
	@$(BIN)/python -m pytest

setup: $(STAMP) ## Make the virtual environment and install what is pinned

$(STAMP): pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not here: install Python 3.11 or newer, or say make PYTHON=…" >&2; exit 2; }
	@echo "Setting up $(VENV): about 150 packages, two to five minutes the first time."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --editable .
	@touch $(STAMP)

data: $(STAMP) ## Check the data and write what was accepted under data/processed (DATA=folder)
	@$(BIN)/python run.py data export --to data/processed $(if $(DATA),--data "$(DATA)")

train: $(STAMP) ## Run the training pipeline (DATA=folder, CONFIG=name)
	@$(BIN)/python run.py --pipeline training $(if $(DATA),--data "$(DATA)") $(if $(CONFIG),--config "$(CONFIG)")

predict: $(STAMP) ## Run the inference pipeline over a folder of pictures (DATA=folder)
	@$(BIN)/python run.py --pipeline inference $(if $(DATA),--data "$(DATA)") $(if $(CONFIG),--config "$(CONFIG)")

visualize: $(STAMP) ## Open ZenML's dashboard on this machine
	@$(BIN)/zenml login --local

lint: $(STAMP) ## Ruff, import rules, mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --cache-dir .import_linter_cache
	@$(BIN)/mypy

bench: $(STAMP) ## Print the benchmarks' ratios, one JSON line each
	@for name in data training serving; do $(BIN)/python -m benchmarks.$$name || exit 1; done

docs: $(STAMP) ## Build the documentation under docs/_build
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@$(BIN)/python -m sphinx -q -b html docs docs/_build

clean: ## Remove what was generated; the virtual environment and what was trained stay
	@rm -rf reports docs/_build build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
