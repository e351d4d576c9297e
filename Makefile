# Needs Python 3.11 or newer and a PyPI index; everything else goes into .venv and .demo.
PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed
# Python compiles what is imported, and keeps it: pip would compile 18,000 files for two minutes, of which few ever are.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 PIP_NO_INDEX=1
TESTS := $(OFFLINE) OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n 2

.DEFAULT_GOAL := help
.PHONY: help install assets demo test slow lint docs findings floor oldest audit licences clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

install: $(STAMP) ## set up .venv with the pinned packages

# Every package by its hash but torch, whose files differ by index; then torch, and bert-ft itself.
$(STAMP): pyproject.toml constraints.txt constraints-hashed.txt
	@test -n "$(PYTHON)" || { echo "bert-ft needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the pinned packages into .venv: a few minutes"
	@$(PIP) --require-hashes --no-deps -r constraints-hashed.txt
	@$(PIP) --no-build-isolation -c constraints.txt -e ".[dev,peft]"
	@touch $@

assets: install
	@$(BIN)/python demo/fetch.py >/dev/null

# The demo's task file looks for its data in .demo.
demo: install ## fine-tune a small BERT on film reviews, under 2 minutes on 2 cores
	@env -u BERT_FT_DEMO_CACHE $(BIN)/python demo/fetch.py >/dev/null
	$(BIN)/bert-ft train demo/film-reviews.toml --checkpoint .demo/all-MiniLM-L6-v2 --overwrite

test: assets ## the tests, offline
	$(TESTS)

slow: assets ## the tests marked slow, offline
	$(TESTS) -m slow

lint: install ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install ## build the documentation into site/
	@$(BIN)/python -c 'import mkdocs, material, mkdocstrings, nbconvert' 2>/dev/null || \
		$(PIP) -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

findings: ## what libraries do that one would guess otherwise: each script checks that it still holds; needs a PyPI index
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; trap 'exit 130' INT TERM; failed=; \
	for script in findings/*.sh; do \
		echo "== $$script"; FINDINGS_ENVIRONMENTS="$$folder" bash "$$script" || failed="$$failed $$script"; \
	done; \
	test -z "$$failed" || { echo "no longer so:$$failed"; exit 1; }

# Its own environment, since the pinned one has the newest; torch as pinned, the rest as that transformers allows it.
OLDEST = $(shell sed -n 's/.*"transformers>=\([0-9.]*\),.*/\1/p' pyproject.toml)
floor: assets ## what is promised of training, with the oldest transformers that pyproject.toml allows
	test -x .venv-floor/bin/python || $(PYTHON) -m venv .venv-floor
	@.venv-floor/bin/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt) \
		"transformers==$(OLDEST).*" -e ".[dev]"
	$(OFFLINE) OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false .venv-floor/bin/python -m pytest -n 2 \
		tests/invariants/test_padding_free.py tests/invariants/test_dropout.py tests/invariants/test_lockstep.py \
		tests/invariants/test_half_precision.py tests/architectures/test_census.py tests/modeling/test_heads.py

oldest: assets ## the quick tests with the oldest versions that pyproject.toml allows; torch as pinned
	@PYTHON=$(BIN)/python bash .ci/oldest

audit: install ## known faults of the pinned packages, where an index of advisories is reached
	@PYTHON=$(BIN)/python bash .ci/audit

licences: install ## write constraints-licences.md anew
	@PYTHON=$(BIN)/python bash .ci/licences

clean: ## remove what was built, the .venv and .demo included
	rm -rf .venv .venv-floor .venv-oldest .demo dist build site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
