# Podium: everything a person or CI does here is a target. `make` alone lists them.
#
# Set-up is a chain of files: interpreter -> .venv -> build tools -> requirements -> podium -> the runtime's wheel.
# A stamp that is newer than what it was made from is not made again, so a second run costs nothing.
# PIP_* and UV_* of the environment are respected; nothing here sets them.

SHELL := /bin/sh
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Byte code is kept, also where an image forbids it: every command of every test would compile its libraries again.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
PY := $(BIN)/python
STAMPS := .venv/.stamps
STEP := tools/step.sh

RUNTIME_VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' runtime/pyproject.toml)
RUNTIME_WHEEL := src/podium/_wheels/podium_runtime-$(RUNTIME_VERSION)-py3-none-any.whl
# Folders too: a removed file changes its folder's time.
RUNTIME_SOURCES := $(shell find runtime/src runtime/pyproject.toml -name __pycache__ -prune -o ! -name '*.pyc' -print)

# An environment whose interpreter is gone, or that was made in another folder (its scripts name that one), is of no
# use: it is made anew, and so is everything in it.
VENV_WORKS := $(shell $(PY) -c '' 2>/dev/null && grep -qF ' $(CURDIR)/.venv' .venv/pyvenv.cfg && echo yes)
ifneq ($(VENV_WORKS),yes)
$(shell rm -rf $(STAMPS))
endif

PYTEST := $(PY) tools/no_leftovers.py $(PY) -m pytest
PYTEST_ARGS ?=
ARGS ?=

# --- to begin with ---------------------------------------------------------------------------------------------

.PHONY: help
help: ## This list
	@echo 'Podium. A fresh clone needs git, make and Python 3.11+ (with venv), no more: each target sets up what it needs.'
	@echo
	@sed -n -e 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-26s %s\n", $$1, $$2}'
	@echo
	@echo 'Examples: make test PYTEST_ARGS="-k rollback -x"    make bench-canary ARGS="--json out.json"    make PYTHON=python3.12 setup'

.PHONY: setup
setup: $(RUNTIME_WHEEL) ## Make .venv with everything in it; takes about a minute the first time, nothing after that

.PHONY: demo
demo: setup ## The main job on real data: a good version goes live, bad ones are taken back by themselves
	@$(BIN)/podium demo $(ARGS)

# --- tests -----------------------------------------------------------------------------------------------------

.PHONY: test
test: setup ## All tests: unit, runtime, integration, e2e, chaos (PYTEST_ARGS="-k name -x" to choose; TEST_WORKERS=2)
	@tools/run_tests.sh $(PYTEST_ARGS)

.PHONY: test-unit
test-unit: setup ## The quick ones: unit and runtime
	@$(PYTEST) -m 'not crash' $(PYTEST_ARGS) tests/unit runtime/tests

.PHONY: test-crash
test-crash: setup ## Kill the server at every write (needs strace)
	@command -v strace >/dev/null || { echo 'make test-crash needs strace. Next: install it, or run make test, which does not.'; exit 1; }
	@$(PYTEST) -m crash -rP $(PYTEST_ARGS) tests/chaos

.PHONY: test-conformance test-fuzz
test-conformance: setup ## Every RPC and path of the inference protocol x our schema, tritonclient, kserve: a table
	@$(PYTEST) $(PYTEST_ARGS) tests/conformance

.PHONY: test-flavors
test-flavors: setup .venv-flavors/.torch ## Models of every framework, in an environment with all of them (1.5 GB on disk)
	@PYTHONPATH=src:runtime/src $(PY) tools/no_leftovers.py .venv-flavors/bin/python -m pytest $(PYTEST_ARGS) tests/flavors

test-fuzz: setup ## Ten thousand malformed or hostile requests at one replica (ARGS="--cases N --seed N")
	@$(PY) -m tests.integration.runtime.fuzz $(ARGS)

# --- checks ----------------------------------------------------------------------------------------------------

.PHONY: check check-format check-lint check-types check-imports check-links check-locks
check: check-format check-lint check-types check-imports check-links check-locks ## Format, lint, types, imports, links in the docs, locks (make -k check: all of them, whatever fails)
	@echo 'check: all fine'

check-format: setup
	@$(BIN)/ruff format --check . || { echo 'Next: make format'; exit 1; }

check-lint: setup
	@$(BIN)/ruff check . || { echo 'Next: make format mends some of these; the rest by hand'; exit 1; }

check-types: setup
	@$(BIN)/mypy

check-imports: setup
	@$(BIN)/lint-imports --no-logo --cache-dir .cache/import_linter || { echo 'Next: move what both need down a rank (the ranks: ARCHITECTURE.md)'; exit 1; }

check-links: setup
	@$(PY) tools/check_links.py

check-locks: setup
	@$(PY) tools/lock.py --check

.PHONY: format
format: setup ## Format, and mend what the linter can mend by itself
	@$(BIN)/ruff check --fix-only --quiet . && $(BIN)/ruff format .

# --- benchmarks ------------------------------------------------------------------------------------------------

.PHONY: bench-canary bench-rollback bench-availability bench-scale bench-concurrency bench-runtime bench-soak
.PHONY: bench-gateway bench-users bench-routes bench-autoscaling bench-shadow
bench-canary: setup ## False rollbacks and requests to detect, beside other rules (ARGS="--json FILE" as for every benchmark)
bench-rollback: setup ## From the verdict to the last request that started on the bad revision
bench-availability: setup ## Failed requests while things are rolled out, killed and upgraded
bench-scale: setup ## 1,000 Deployments: apply, memory, idle CPU, weight flips
bench-concurrency: setup ## Many writers on one Deployment, two servers on one PostgreSQL

bench-runtime: setup .venv-mlserver/.made ## The model server beside MLServer: requests/s, latencies (REST, gRPC, ONNX, 1 MB)
bench-gateway: setup ## What the gateway adds to a request, beside plain Envoy and Python proxies (ARGS="--quick")
bench-users: setup ## 100,000 users of a sticky A/B at two gateways, before and after a change of shares
bench-routes: setup ## 1,000 and 10,000 Deployments with Routes: configuration, loading, memory, changes
bench-autoscaling: setup ## The autoscaler over recorded and made-up loads, with plots (simulated clock)
bench-shadow: setup ## The champion's latency with and without a shadow
bench-canary bench-rollback bench-availability bench-scale bench-concurrency bench-runtime \
bench-gateway bench-users bench-routes bench-autoscaling bench-shadow:
	@$(PY) -m benchmarks.$(@:bench-%=%) $(ARGS)

.PHONY: bench-flavors
bench-flavors: setup .venv-flavors/.torch ## Per flavor: cold start to ready, memory, deviation from the framework's own predictions
	@PYTHONPATH=src:runtime/src .venv-flavors/bin/python -m tests.flavors.measure $(ARGS)

bench-soak: setup ## Ten minutes at 70 % of capacity, then SIGTERM under load (ARGS="--seconds 20" for a short one)
	@$(PY) -m benchmarks.runtime.soak $(ARGS)

# --- upkeep ----------------------------------------------------------------------------------------------------

.PHONY: lock
lock: $(STAMPS)/build ## Pin the requirements anew (network; ARGS=--upgrade takes newer versions)
	@$(PY) tools/lock.py $(ARGS)

.PHONY: clean
clean: ## Remove everything that make has made, .venv too
	rm -rf .venv .venv-* .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .schemathesis dist build $(dir $(RUNTIME_WHEEL))*.whl
	find . -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the chain of the set-up -----------------------------------------------------------------------------------

# An environment that works is kept: what is in it is brought in step below.
$(STAMPS)/venv:
ifneq ($(VENV_WORKS),yes)
	@python=$$(tools/find_python.sh) && $(STEP) "virtual environment with $$python" "$$python" -m venv --clear .venv
endif
	@mkdir -p $(@D) && touch $@

$(STAMPS)/build: requirements/build.txt | $(STAMPS)/venv
	@$(STEP) 'build tools' $(PY) -m pip install --require-hashes --no-deps -r $<
	@touch $@

$(STAMPS)/requirements: requirements/dev.txt $(STAMPS)/build
	@$(STEP) 'requirements, pinned with hashes (over 1 GB on disk the first time)' tools/install_requirements.sh $<
	@touch $@

# Other people's servers and clients, each with versions of its own.
.venv-%/.made: requirements/%.txt $(STAMPS)/requirements
	@$(STEP) 'an environment for $*' tools/side_environment.sh .venv-$* $<
	@touch $@

# Which build of torch there is differs from machine to machine: pip takes it with its own settings (PIP_*, pip.conf).
# Byte code as in the environments that podium makes, which start-up times depend on.
.venv-flavors/.torch: requirements/flavors-torch.txt .venv-flavors/.made
	@$(STEP) 'torch, beside the other frameworks' $(PY) -m pip --python .venv-flavors/bin/python install -r $<
	@$(STEP) 'byte code for them' .venv-flavors/bin/python -m compileall -q -j 0 -x '/(testing|tests)/' .venv-flavors/lib
	@touch $@

# Editable, and the runtime too: tests import both. --no-deps: what they need is in the lock.
$(STAMPS)/podium: pyproject.toml runtime/pyproject.toml hatch_build.py $(STAMPS)/requirements
	@$(STEP) 'podium and podium-runtime' $(PY) -m pip install --no-deps --no-build-isolation --no-index --editable runtime --editable .
	@touch $@

$(RUNTIME_WHEEL): $(RUNTIME_SOURCES) hatch_build.py $(STAMPS)/podium
	@$(STEP) "the model server's wheel" $(PY) hatch_build.py
