# Everything is installed into .venv; nothing else is needed but Python 3.11+, make and git.
# Works with the make that macOS ships (3.81).
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# Written by scripts/setup.sh.
RUN_STAMP := $(VENV)/.stamp-run
TEST_STAMP := $(VENV)/.stamp-test
# Folders that mypy and ruff check, where they exist.
CHECKED := $(wildcard src tests bench scripts examples)
TYPED := $(wildcard src tests bench)
# make test PYTEST_ARGS="-k link -x"
PYTEST_ARGS ?=

export PYTHON

# What says which packages the SDK needs.
SDK_MANIFESTS := sdk/package.json sdk/package-lock.json $(wildcard sdk/packages/*/package.json)

.PHONY: help setup setup-test demo test test-all check lint types sdk audit bench lock clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(RUN_STAMP) ## the environment in .venv, with the command .venv/bin/gapless

setup-test: $(TEST_STAMP) ## what the tests need besides: test packages, Node, Mosquitto, Chromium

$(RUN_STAMP): pyproject.toml requirements/run.txt requirements/build.txt
	@scripts/setup.sh run

$(TEST_STAMP): $(RUN_STAMP) requirements/dev.txt tests/js/package.json tests/js/package-lock.json $(SDK_MANIFESTS)
	@scripts/setup.sh test

demo: setup ## every transport at once: five events, a live table, a page to watch them
	@$(BIN)/gapless demo

test: setup-test ## the tests but the long ones
	@$(BIN)/pytest -n auto --dist worksteal -m "not slow" $(PYTEST_ARGS)

test-all: setup-test ## all tests
	@$(BIN)/pytest -n auto --dist worksteal $(PYTEST_ARGS)

lint: setup-test
	@echo "==> ruff"
	@$(BIN)/ruff check $(CHECKED)
	@$(BIN)/ruff format --check $(CHECKED)

types: setup-test
	@echo "==> mypy (strict)"
	@$(BIN)/mypy $(TYPED)

sdk: setup-test ## the TypeScript packages: compiler, their own tests, packaging, size
	@echo "==> sdk"
	@cd sdk && PATH="$(CURDIR)/$(BIN):$$PATH" npm run --silent check

audit: setup-test ## known vulnerabilities in what the locks name
	@echo "==> audit"
	@$(BIN)/python scripts/audit.py

check: lint types sdk audit test-all ## ruff, mypy, the SDK's checks, audit, all tests: what continuous integration runs

bench: setup-test ## the figures beside those of the peers, with the machine and the versions
	@$(BIN)/python -m bench.peers.build
	@$(BIN)/python -m bench

lock: setup ## write the locks anew from pyproject.toml, tests/js and sdk
	@scripts/lock.sh

clean: ## remove .venv and everything that tools left behind
	@rm -rf $(VENV) tests/js/node_modules sdk/node_modules sdk/packages/*/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
