# The one developer door. Needs Python 3.11 or later and make; everything else is installed into .venv from the hashed locks.
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
# `voice` needs requirements.lock alone; the tests and the tools of developers need requirements-dev.lock, which holds both.
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
# What uv fetches it keeps below HOME, or not at all where nothing can be written there.
NO_CACHE := cache=$$($(BIN)/uv cache dir); mkdir -p "$$cache" 2>/dev/null && test -w "$$cache" || echo --no-cache
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python $$($(NO_CACHE))
COMPILE := $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
	--python-version 3.11 --no-emit-package voice-policies --no-emit-package voice-runtime
# Python before 3.13 reads the paths of what is installed in the locale's encoding, and C has no letters outside ASCII.
ifneq ($(filter C POSIX,$(LC_ALL)),)
export LC_ALL := C.UTF-8
endif

.DEFAULT_GOAL := help
.PHONY: help render test integration-test distributions-test lint format types accept docs lock bench flows cluster-test engine-test clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

render: $(INSTALLED) ## Render every environment into build/<environment>/ and print a summary
	@$(BIN)/voice render

test: $(READY) ## Run the tests that need Python alone
	$(BIN)/pytest -m "not cluster and not engine and not integration" -n auto --dist worksteal

distributions-test: $(READY) ## Install each distribution alone into an empty environment and run its own tests there
	$(BIN)/python -m tests.distributions

integration-test: $(READY) ## Try what is rendered for Consul, a Go client (both built from Go modules) and HAProxy
	$(BIN)/pytest -m integration -rs tests/integration

flows: $(READY) ## Run the platform's flows between reference services on this machine
	$(BIN)/voice render dev
	$(BIN)/voice-flows build/dev/policies

cluster-test: $(READY) ## Build a Kubernetes control plane from Go modules and try every environment on it
	$(BIN)/pytest -m cluster tests/cluster

engine-test: $(READY) ## Deploy dev by Pulumi's engine, built from Go modules, to that control plane or to CONTEXT=...
	ENGINE_CONTEXT=$(CONTEXT) $(BIN)/pytest -m engine -rs tests/cluster/engine

bench: $(READY) ## Measure rendering, the runtime, a call on the wire, distributed limits and sagas beside their peers
	$(BIN)/python -m bench.render
	$(BIN)/python -m bench.runtime
	$(BIN)/python -m bench.wire
	$(BIN)/python -m bench.shared_state
	$(BIN)/python -m bench.sagas

lint: $(READY) ## Formatting, lint, strict types, and the arrows between packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Format and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(READY) ## Make the Kubernetes types anew from the API's schema
	$(BIN)/python -m components.kubernetes

accept: docs ## Renew what people review: snapshots, URN lists and generated documents
	$(BIN)/python -m tests.accept

docs: $(READY) ## Make the generated documents and the bundle's JSON Schema anew
	$(BIN)/voice docs
	$(BIN)/voice schema
	$(BIN)/python -m tests.architecture.public_api

lock: $(INSTALLED) ## Resolve the dependencies anew: versions and hashes, no addresses
	$(COMPILE) pyproject.toml --group build -o requirements.lock
	$(COMPILE) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) runtime/voice_reference/pyproject.toml -c requirements-dev.lock -o runtime/voice_reference/requirements.lock

clean: ## Remove what the build made
	rm -rf build $(VENV)

$(INSTALLED): requirements.lock pyproject.toml policies/pyproject.toml
	@echo "Installing into $(VENV) from requirements.lock"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(INSTALL) --require-hashes --compile-bytecode -r requirements.lock
	@$(INSTALL) --offline --no-deps --no-build-isolation -e policies -e .
	@touch $@

$(READY): $(INSTALLED) requirements-dev.lock $(wildcard runtime/*/pyproject.toml)
	@echo "Installing into $(VENV) from requirements-dev.lock"
	@$(INSTALL) --require-hashes --compile-bytecode -r requirements-dev.lock
	@$(INSTALL) --offline --no-deps --no-build-isolation $(addprefix -e ,$(wildcard runtime/*))
	@touch $@
