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

.PHONY: help setup build testnet test compat lint fmt doc bench clean-testnet

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

build: setup ## release build of every binary
	$(CARGO) build --release --workspace --bins --locked

testnet: build ## four validators and three rollups on this machine; Ctrl-C stops them
	"$(TARGET_DIR)/release/switchyard" testnet up --dir "$(TESTNET_DIR)" $(TESTNET_ARGS)

# The end-to-end tests start real processes, so the binaries are built first, with the same features as the tests.
test: setup ## every test
	$(CARGO) build --workspace --bins --tests --locked
	$(CARGO) test --workspace --locked
	$(MAKE) --no-print-directory compat

compat: ## JavaScript and Foundry tools against a network of the dev build
	@if [ ! -f $(COMPAT)/package.json ]; then exit 0; fi
	command -v npm >/dev/null || {
	    echo "compat: npm is missing; install Node.js 20 or newer (Debian: apt-get install nodejs npm)"
	    exit 2
	}
	cd $(COMPAT)
	# A lock file that is as new as the installed tree means that nothing changed since the last install.
	[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund --ignore-scripts
	SWITCHYARD_BIN_DIR="$(TARGET_DIR)/debug" npm test </dev/null

lint: ## clippy with warnings denied, and formatting
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) fmt --all --check

fmt: ## format every Rust file
	$(CARGO) fmt --all

doc: ## API documentation, warnings denied
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --locked

bench: setup ## criterion benches; for load on a network: switchyard bench --help
	$(CARGO) bench -p switchyard-benches --locked

clean-testnet: ## stop the local network and delete its data
	@if [ -x "$(TARGET_DIR)/release/switchyard-testnet" ] && [ -d "$(TESTNET_DIR)" ]; then
	    "$(TARGET_DIR)/release/switchyard-testnet" down --dir "$(TESTNET_DIR)"
	fi
	rm -rf "$(TESTNET_DIR)"
