# `make` alone prints this help.
SHELL := /bin/bash
PYTHON := .venv/bin/python
# Left empty, the demo's own defaults hold.
SHARE ?=
WEEKS ?=
PYTEST_ARGS ?=
export FRESHRANK_HOME ?= $(CURDIR)/.freshrank

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo up down status test unit check docs bench clean lock

help: ## Print this help
	@echo "Freshrank. Usage: make <target>, for example: make demo SHARE=1 WEEKS=12"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) \
		| awk -F ':.*## ' '{ printf "  \033[36m%-8s\033[0m %s\n", $$1, $$2 }'

setup: ## Make .venv with the locked packages (gets uv by itself)
	@scripts/bootstrap.sh base

setup-dev:
	@scripts/bootstrap.sh dev

demo: setup ## Replay a real shop's weeks on a real Airflow and MLflow (SHARE=0.25 WEEKS=8)
	@$(PYTHON) -m local demo $(if $(SHARE),--share $(SHARE)) $(if $(WEEKS),--weeks $(WEEKS))

up: setup ## Start PostgreSQL, MLflow and Airflow on this machine; print where their pages are
	@$(PYTHON) -m local up $(if $(SHARE),--share $(SHARE))

down: setup ## Stop them; the data stays
	@$(PYTHON) -m local down

status: setup ## Show interval by interval what the ranker learned and who is champion
	@settings="$$($(PYTHON) -m local env)" && source "$$settings" && $(PYTHON) -m pipelines status

test: setup-dev ## Run every test, two files at a time; those of a server not installed are skipped
	@$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

unit: setup-dev ## Run the tests that need no server
	@$(PYTHON) -m pytest -n auto -m "not services and not airflow and not slow" $(PYTEST_ARGS)

check: setup-dev ## Lint, formatting, types, import rules and spelling
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@PYTHONPATH=.:plugins .venv/bin/lint-imports
	@.venv/bin/codespell

# Pages are gathered as they lie in the repository, so that one link serves both. MkDocs' builder warns
# of its own end of life in 2027 with every run: the variable leaves that out.
docs: setup-dev ## Build the documentation site into .site/html; a broken link fails
	@rm -rf .site && mkdir -p .site/pages
	@cp -r --parents docs *.md expectations/README.md shops/*/README.md .site/pages
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict
	@echo "see it: $(PYTHON) -m http.server --bind 127.0.0.1 --directory .site/html 8000"

bench: setup-dev ## Measure what README's figures come from
	@$(PYTHON) -m benchmarks loop

clean: setup ## Stop everything and DELETE its databases, lake, models and logs
	@$(PYTHON) -m local clean

lock: setup-dev ## Renew the requirements*.txt from the .in files
	@export PATH="$(CURDIR)/.tools/uv/bin:$$PATH"; \
	lock() { uv pip compile "$$1.in" --quiet --upgrade --python-version 3.11 --no-emit-index-url \
		--no-header -o "$$1.txt" "$${@:2}"; }; \
	lock requirements && \
	lock requirements-scale -c requirements.txt && \
	lock requirements-dev -c requirements.txt -c requirements-scale.txt
