# Switchyard's commands. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
# Debian packages that a build needs: a C toolchain and clang for RocksDB and blst, libclang for its bindings.
PACKAGES := build-essential pkg-config clang libclang-dev make git
TESTNET_DIR ?= testnet-data
TESTNET_ARGS ?=
COMPAT := testnet/compat
# What a release build makes: the tests' and the simulation's programs are not among them.
PROGRAMS := switchyard switchyard-testnet switchyard-bench
# Of the simulated networks.
SEEDS ?= 200
FROM ?= 0
SIM_ARGS ?=
WAN_ARGS ?=
# Of power cuts.
POINTS ?= 500
SEED ?= 1
POWERCUT_DIR ?= $(TARGET_DIR)/powercut
POWERCUT_ARGS ?=

.PHONY: help setup build testnet test fuzz compat sim sim-wan powercut lint fmt doc bench clean-testnet

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

setup: ## install what a build needs (apt, only what is missing) and look for cargo
	@if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
	    missing=()
	    for package in $(PACKAGES); do
	        status=$$(dpkg-query -W -f='$${db:Status-Status}' "$$package" 2>/dev/null || true)
	        [ "$$status" = installed ] || missing+=("$$package")
	    done
	    if [ "$${#missing[@]}" -gt 0 ]; then
	        as_root=()
	        if [ "$$(id -u)" -ne 0 ]; then
	            command -v sudo >/dev/null || {
	                echo "setup: missing Debian packages: $${missing[*]}"
	                echo "setup: neither root nor sudo here; as root run: apt-get install -y $${missing[*]}"
	                exit 2
	            }
	            as_root=(sudo)
	        fi
	        echo "setup: installing with apt-get: $${missing[*]}"
	        "$${as_root[@]}" apt-get update
	        "$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$${missing[@]}" </dev/null
	    fi
	else
	    for tool in clang clang++ pkg-config git; do
	        command -v "$$tool" >/dev/null || {
	            echo "setup: $$tool is missing and this system has no apt-get."
	            echo "setup: install your system's packages for: $(PACKAGES)"
	            exit 2
	        }
	    done
	fi
	command -v $(CARGO) >/dev/null || {
	    echo "setup: cargo is missing. Install Rust 1.95 or newer from https://rustup.rs, then open a new shell"
	    echo "setup: (or run: source ~/.cargo/env) and try again."
	    exit 2
	}
	echo "setup: complete ($$($(CARGO) --version))"

build: setup ## release build of the programs that users run
	$(CARGO) build --release --workspace $(addprefix --bin ,$(PROGRAMS)) --locked

testnet: build ## four validators and three rollups on this machine; Ctrl-C stops them
	"$(TARGET_DIR)/release/switchyard" testnet up --dir "$(TESTNET_DIR)" $(TESTNET_ARGS)

# The tests of wallets and of the independent client run in Node.js; a Node.js from elsewhere than apt will do.
test compat: PACKAGES += $(if $(shell command -v npm),,nodejs npm)

# The end-to-end tests start real processes, so the binaries are built first, with the same features as the tests.
test: setup ## every test
	$(CARGO) build --workspace --bins --tests --locked
	$(CARGO) test --workspace --locked
	$(MAKE) --no-print-directory compat

fuzz: setup ## every fuzz target under libFuzzer, FUZZ_SECONDS (300) each; FUZZ_TARGETS chooses
	@CARGO="$(CARGO)" CARGO_TARGET_DIR="$(TARGET_DIR)" ./testnet/fuzz/run.sh $(FUZZ_TARGETS)

compat: setup ## the contracts; wallets' libraries, Foundry and an independent execution client against the dev build (needs npm)
	@if ! command -v npm >/dev/null; then
	    echo "compat: npm is missing; install Node.js 18 or newer"
	    exit 2
	fi
	./bridge/contracts/run.sh </dev/null
	./rollup/evm/tests/ethereumjs/run.sh </dev/null
	cd $(COMPAT)
	# Not `npm ci`: it wants every other platform's binaries in the lock file. npm writes the inner lock file last: as long
	# as it is newer, the installed tree is whole and up to date.
	[ node_modules/.package-lock.json -nt package-lock.json ] ||
	    npm install --no-save --ignore-scripts --no-audit --no-fund </dev/null
	[ client/node_modules/.package-lock.json -nt client/package-lock.json ] ||
	    npm ci --prefix client --ignore-scripts --no-audit --no-fund </dev/null
	npm run --silent check </dev/null
	testnet="$(TARGET_DIR)/debug/switchyard-testnet"
	dir=$$(mktemp -d)
	end() { "$$testnet" down --dir "$$dir" && rm -rf "$$dir"; }
	trap end EXIT
	"$$testnet" up --detach --no-demo --base-port 0 --dir "$$dir" >/dev/null
	"$$testnet" endpoints --json --dir "$$dir" >"$$dir/endpoints.json"
	npm test --silent -- "$$dir/endpoints.json" </dev/null
	end
	"$$testnet" up --detach --no-demo --base-port 0 --dir "$$dir" --one-second >/dev/null
	"$$testnet" demo --dir "$$dir"
	"$$testnet" endpoints --json --dir "$$dir" >"$$dir/endpoints.json"
	SWITCHYARD="$(TARGET_DIR)/debug/switchyard" npm test --silent -- "$$dir/endpoints.json" pending bundle engine </dev/null

sim: setup ## simulated networks with faults, one for each seed: make sim SEEDS=1000 FROM=0
	$(CARGO) build --workspace --bin switchyard-sim --locked
	"$(TARGET_DIR)/debug/switchyard-sim" --seeds $(SEEDS) --from $(FROM) $(SIM_ARGS)

sim-wan: setup ## finality over ten regions in simulated time: make sim-wan WAN_ARGS='--validators 10'
	$(CARGO) build --workspace --bin switchyard-sim-wan --locked
	"$(TARGET_DIR)/debug/switchyard-sim-wan" $(WAN_ARGS)

powercut: setup ## cuts the power between any two writes of validators: make powercut POINTS=5000 SEED=7
	$(CARGO) build --workspace --bins --locked
	powercut="$(TARGET_DIR)/debug/switchyard-powercut"
	"$$powercut" run --points $(POINTS) --seed $(SEED) --dir "$(POWERCUT_DIR)" $(POWERCUT_ARGS)
	"$$powercut" run --points $$(( $(POINTS) / 12 )) --seed $(SEED) --dir "$(POWERCUT_DIR)" $(POWERCUT_ARGS) \
	    --validators 4 --blocks 150 --jobs 1

lint: ## clippy with warnings denied, and formatting
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) fmt --all --check

fmt: ## format every Rust file
	$(CARGO) fmt --all

doc: ## API documentation, warnings denied
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --locked

bench: setup ## criterion benches; for load on a network: switchyard bench --help
	$(CARGO) bench --workspace --bench '*' --locked

clean-testnet: ## stop the local network and delete its data
	@if [ -x "$(TARGET_DIR)/release/switchyard-testnet" ] && [ -d "$(TESTNET_DIR)" ]; then
	    "$(TARGET_DIR)/release/switchyard-testnet" down --dir "$(TESTNET_DIR)"
	fi
	rm -rf "$(TESTNET_DIR)"
