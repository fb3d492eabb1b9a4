# Needs Python >= 3.11 and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)

# Demo and tests use their own server and data directory, whatever .env or the environment say. The hundreds of
# processes they start read compiled modules; compiling ours would take a fifth of each start.
ISOLATED := env -u PYTHONDONTWRITEBYTECODE -u CELERY_BROKER_URL -u CELERY_RESULT_BACKEND -u CELERY_CONFIG_MODULE \
	$(shell env | sed -n 's/^\(TASKAPP_[A-Za-z0-9_]*\)=.*/-u \1/p') TASKAPP_ENV_FILE=

# Recipes use exec: make passes a stop signal to the process of its recipe, and a shell would not pass it on.
.DEFAULT_GOAL := help
.PHONY: help demo up test test-all faults bench check tables lock wheel clean

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## run the main job on real flights, end to end
	@exec $(ISOLATED) $(BIN)/taskapp demo $(ARGS)

up: $(VENV)/.demo ## run everything for development: Redis, worker, beat, Flower, exporter; history with taskapp[history]
	@exec $(BIN)/taskapp up $(ARGS)

# Most tests wait for processes: four per core keep two cores busy, and no worker is left alone with a long file.
TOGETHER := -n 8 --dist worksteal
test: $(VENV)/.dev ## run unit tests and quick tests on real servers
	@exec $(ISOLATED) $(BIN)/python -m pytest $(TOGETHER) -m "not slow and not long and not browser" $(ARGS)

# File by file: the alert tests share one deployment, on which each fault is played once.
test-all: $(VENV)/.dev ## run every test, and generated ones with more examples
	@exec $(ISOLATED) TESTS_THOROUGH=1 $(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS)

FAULTS ?= quick
faults: $(VENV)/.dev ## break real servers and workers, count every task (FAULTS=full, ARGS="--rows 1,2")
	@exec $(ISOLATED) $(BIN)/python -m tests.faults --size $(FAULTS) $(ARGS)

bench: $(VENV)/.dev ## measure what a task costs, compared with other frameworks; write docs/benchmarks.md (ARGS="--size full")
	@exec $(ISOLATED) $(BIN)/python -m benchmarks $(ARGS)

check: $(VENV)/.dev ## check style, types, imports and deployment files
	@PATH="$(CURDIR)/$(BIN):$$PATH" ./scripts/check

tables: $(VENV)/.dev ## write the tables of settings, metrics and alerts into the documents
	@$(BIN)/python scripts/tables.py

lock: $(VENV)/.dev ## write requirements/*.txt from pyproject.toml
	@PATH="$(CURDIR)/$(BIN):$$PATH" ./scripts/lock

wheel: $(VENV)/.dev ## build dist/taskapp-*.whl
	@$(BIN)/python -m build --wheel --no-isolation

clean: ## remove .venv and build results
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache

# Both stamps belong to one environment: making dev also makes demo.
$(VENV)/.demo: requirements/demo.txt pyproject.toml | $(BIN)/python
	@./scripts/install $(VENV) requirements/demo.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(BIN)/python
	@./scripts/install $(VENV) requirements/dev.txt
	@touch $@ $(VENV)/.demo

$(BIN)/python:
	@./scripts/venv $(PYTHON) $(VENV)
