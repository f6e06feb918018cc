# One word per chore, the same here and in continuous integration. `make` alone lists the words.
# Needs Python 3.11 or newer with pip, and make. Everything is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

# What to hand on: make test ARGS="-k bm25", make bench ARGS=benchmarks/metrics.py
ARGS ?=
# Test processes: all cores up to four, since each holds its own torch.
WORKERS ?= auto
# Campaigns are random; the same seed repeats one. More of them: make campaign ARGS="--kills 2000"
ifndef SEED
SEED := $(shell $(PYTHON) -c "import secrets; print(secrets.randbits(32))")
endif

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench campaign

help: ## list the words
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.has-offline ## index, search, fuse and evaluate real text; print the table
	$(BIN)/retrievekit bench stdlib --system bm25 --system minilm --system "rrf(bm25, minilm)" --measure nDCG@10 --measure R@100 --measure RR@10 --baseline bm25 --output demo-output

test: $(VENV)/.has-dev ## run the whole suite
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile $(ARGS)

check: $(VENV)/.has-dev ## formatting, lint and types, without changing a file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict

format: $(VENV)/.has-dev ## put the formatting right, and what lint can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.has-dev ## run the benchmark programs, or those named in ARGS
	@set -e; for program in $(or $(ARGS),$(sort $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)))); do \
		echo "+ $(BIN)/python $$program"; $(BIN)/python "$$program"; \
	done

campaign: $(VENV)/.has-dev ## the long campaigns and every law with many random cases
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile -m "campaign or hypothesis" --timeout 0 --hypothesis-profile campaign --hypothesis-seed $(SEED) --campaign-seed $(SEED) $(ARGS)

# The stamps are newer than what they were made from, so that a second call installs nothing.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "retrievekit needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments; install its venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.has-offline: pyproject.toml $(VENV)/.made
	$(PIP) install --editable ".[offline]"
	@touch $@

$(VENV)/.has-dev: pyproject.toml $(VENV)/.made
	$(PIP) install --editable ".[dev]"
	@touch $@ $(VENV)/.has-offline
