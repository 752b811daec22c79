# The commands for developers. You need Python 3.11 or later and make; the rest is installed into .venv from hashed locks.
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
# `voice` needs only requirements.lock. Tests and developer tools need requirements-dev.lock, which includes requirements.lock.
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
# uv keeps its downloads in a cache below HOME. If the cache is not writable, uv runs without it.
NO_CACHE := cache=$$($(BIN)/uv cache dir); mkdir -p "$$cache" 2>/dev/null && test -w "$$cache" || echo --no-cache
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python $$($(NO_CACHE))
COMPILE := $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
	--python-version 3.11 --no-emit-package voice-models --no-emit-package voice-policies \
	--no-emit-package voice-runtime
# Builds the programs before pytest's two workers start, because otherwise each worker would build all of them. Exit code 77 means that Go
# is missing; pytest then skips the tests.
BUILD_ENGINE = @$(BIN)/python -m tests.cluster.toolchain control-plane operators pulumi pulumi-kubernetes || test $$? = 77
# Python before 3.13 decodes the paths in .pth files by the locale's encoding. The C locale has no letters outside ASCII.
ifneq ($(filter C POSIX,$(LC_ALL)),)
export LC_ALL := C.UTF-8
endif

# Installed programs contain the path of the checkout. If the checkout was copied, the next line deletes the copy of .venv, because its
# programs would run the code of the original.
$(shell test -s $(INSTALLED) && test "$$(cat $(INSTALLED))" != "$$(pwd -P)" && rm -rf $(VENV))
# Without bytecode each process that the tests start compiles some 200 modules.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help render up down test integration-test distributions-test lint format types accept diagrams docs lock bench flows outages fuzz cluster-test engine-test engine-faults clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

render: $(INSTALLED) ## Render every environment into build/<environment>/ and print a summary
	@$(BIN)/voice render

test: $(READY) ## Run the tests that need neither Go nor installed servers
	$(BIN)/pytest -m "not cluster and not engine and not faults and not integration" -n auto --dist worksteal --durations 5

distributions-test: $(READY) ## Install each distribution alone into an empty environment and run its own tests there
	$(BIN)/python -m tests.distributions

integration-test: $(READY) ## Test rendered files on Consul, the blackbox exporter, a Go client (all built from Go modules), HAProxy, Valkey, Elasticsearch and Mermaid
	$(BIN)/pytest -m integration -rs tests/integration

flows: $(READY) ## Run the platform's flows between reference services on this machine
	$(BIN)/voice render dev
	$(BIN)/voice-flows build/dev/policies

outages: $(READY) ## Freeze, kill and slow down each reference service, and measure for how long its callers then refuse calls
	$(BIN)/voice render dev
	$(BIN)/voice-outages build/dev/policies

up: $(INSTALLED) ## Deploy dev to a kind cluster, or to CONTEXT=... with IMAGE=..., and send it one request
	$(BIN)/voice up dev $(if $(CONTEXT),--context $(CONTEXT)) $(if $(IMAGE),--image $(IMAGE))

down: $(INSTALLED) ## Remove everything that `make up` deployed
	$(BIN)/voice down dev $(if $(CONTEXT),--context $(CONTEXT))

cluster-test: $(READY) ## Build a Kubernetes control plane from Go modules and apply every environment to it
	$(BIN)/pytest -m cluster tests/cluster

engine-test: $(READY) ## Deploy dev with Pulumi's engine, built from Go modules, to the control plane of cluster-test or to CONTEXT=NAME
	$(BUILD_ENGINE)
	ENGINE_CONTEXT=$(CONTEXT) $(BIN)/pytest -m engine -rs -n 2 --dist loadfile tests/cluster/engine

engine-faults: $(READY) ## Deploy the toy tenant with Pulumi's engine while the tests interrupt updates, change deployed objects and switch clusters
	$(BUILD_ENGINE)
	$(BIN)/pytest -m faults -rs -n 2 --dist loadfile tests/cluster/engine

fuzz: $(READY) ## Run voice check on 10,000 randomly changed settings and catalogues, and count its exit codes
	$(BIN)/python -m tests.fuzz 10000

bench: $(READY) ## Measure rendering, the audit, the runtime, a gRPC call, a model call, distributed limits, sagas and the cache's failover, and compare some with other tools
	$(BIN)/python -m bench.render
	$(BIN)/python -m bench.audit
	$(BIN)/python -m bench.runtime
	$(BIN)/python -m bench.comparison
	$(BIN)/python -m bench.wire
	$(BIN)/python -m bench.models
	$(BIN)/python -m bench.shared_state
	$(BIN)/python -m bench.sagas
	$(BIN)/python -m bench.failover

lint: $(READY) ## Check formatting, lint, strict types, the imports between packages, and plain English
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.architecture.plain_english

format: $(READY) ## Format the code and apply the fixes that ruff knows
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(READY) ## Generate the Kubernetes types from the API's schema
	$(BIN)/python -m components.kubernetes

accept: docs ## Renew the snapshots, URN lists and generated documents; then review their diff
	$(BIN)/python -m tests.accept
	$(BIN)/pytest -n0 --snapshot-update tests/stack/audit

diagrams: $(READY) ## Draw every diagram of the documents as SVG into build/diagrams/ (needs npm and Chromium)
	$(BIN)/python -m tests.mermaid

docs: $(READY) ## Regenerate the generated documents and the JSON Schema of the bundle
	$(BIN)/voice docs
	$(BIN)/voice schema
	$(BIN)/python -m tests.architecture.public_api

lock: $(INSTALLED) ## Resolve the dependencies again, and write versions and hashes, but not the addresses of package indexes
	$(COMPILE) pyproject.toml --group build -o requirements.lock
	$(COMPILE) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) runtime/voice_reference/pyproject.toml -c requirements-dev.lock -o runtime/voice_reference/requirements.lock

clean: ## Remove build/ and .venv
	rm -rf build $(VENV)

$(INSTALLED): requirements.lock pyproject.toml policies/pyproject.toml
	@echo "Installing into $(VENV) from requirements.lock"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; choose the program, as in `make PYTHON=python3.11 render`")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(INSTALL) --require-hashes --compile-bytecode -r requirements.lock
	@$(INSTALL) --offline --no-deps --no-build-isolation -e policies -e .
	@pwd -P > $@

$(READY): $(INSTALLED) requirements-dev.lock $(wildcard runtime/*/pyproject.toml)
	@echo "Installing into $(VENV) from requirements-dev.lock"
	@$(INSTALL) --require-hashes --compile-bytecode -r requirements-dev.lock
	@$(INSTALL) --offline --no-deps --no-build-isolation $(addprefix -e ,$(wildcard runtime/*))
	@touch $@
