# Two commands are all that a fresh machine needs: make demo, make test.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
LOCKED := --disable-pip-version-check -q --require-hashes --only-binary :all: --no-binary chirpstack-api,detools --no-build-isolation
ARGS ?=
ONLY ?=
CONFIG ?= config/gatewayd.toml
WORKERS ?= 3

.PHONY: demo test check run bench lint unit services lock clean

demo: .venv/.runtime
	@$(BIN)/gatewayd demo $(ARGS)

# Byte code is kept: the tests start some hundred processes, and each would compile the whole program anew.
test check unit: export PYTHONDONTWRITEBYTECODE :=

# In the order of the folders: the long ones, which start processes, come first and the many short ones fill up behind them.
test: .venv/.dev lint services
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/.dev lint
	@$(BIN)/pytest -n $(WORKERS) -m "not services" $(ARGS)

unit: .venv/.dev
	@$(BIN)/pytest -m "not services" $(ARGS)

lint: .venv/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

run: .venv/.runtime
	@$(BIN)/gatewayd run --config $(CONFIG)

bench: .venv/.dev
	@$(BIN)/python -m tests.benchmarks $(if $(ONLY),--only $(ONLY)) $(ARGS)

# Debian's mosquitto, systemd-analyze and more: installed when we may, else said in one line.
services:
	@tests/services.sh

.venv/pyvenv.cfg:
	@$(PYTHON) -m venv .venv

# chirpstack-api is published as a source archive of pure Python: it is built with the locked setuptools, no compiler.
.venv/.runtime: .venv/pyvenv.cfg config/build.lock config/runtime.lock pyproject.toml
	@echo "installing the locked packages into .venv"
	@$(BIN)/pip install $(LOCKED) -r config/build.lock
	@$(BIN)/pip install $(LOCKED) -r config/runtime.lock
	@$(BIN)/pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $@

# detools (deltas, tried in the tests) is published as a source archive with C in it.
.venv/.dev: .venv/.runtime config/dev.lock
	@tests/services.sh build $(BIN)/python
	@$(BIN)/pip install $(LOCKED) -r config/dev.lock
	@touch $@

# Needs uv on the PATH. Run after a change to pyproject.toml's dependencies, and commit the result.
COMPILE := uv pip compile --quiet --universal --generate-hashes --only-binary :all: --no-binary chirpstack-api --no-binary detools --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --no-emit-build-options --no-header --no-annotate
lock:
	@echo 'setuptools>=77' | $(COMPILE) - -o config/build.lock
	@$(COMPILE) --extra publisher --extra demo pyproject.toml -o config/runtime.lock
	@$(COMPILE) --extra publisher --extra delta --extra demo --extra dev pyproject.toml -o config/dev.lock

clean:
	@rm -rf .venv build *.egg-info
