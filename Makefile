# Atoll's commands. `make run` and `make test` are all that a newcomer needs; both work from a plain clone
# on a Debian machine that has Rust. Everything is built with the release profile and for the whole workspace at
# once, so that lints, tests and benches share what they compile.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run dev-setup test-setup build test hostile soak fuzz bench lint fmt clean

CARGO ?= cargo
# Where `make run` listens; change it with `make run LISTEN=127.0.0.1:9000`.
LISTEN ?= 127.0.0.1:8787

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: build ## Build, start the server with the examples deployed, print the URLs to try
	@LISTEN="$(LISTEN)" scripts/run.sh

dev-setup:
	@scripts/setup.sh build
	@scripts/v8.sh

test-setup:
	@scripts/setup.sh test
	@scripts/v8.sh

build: dev-setup ## Build the release binary
	$(CARGO) build --release --locked --bin atoll

test: test-setup ## Run every test
	$(CARGO) test --release --locked --workspace --no-fail-fast

hostile: test-setup ## Run the hostile suite alone and print its table (ROW=21 for one row)
	$(if $(ROW),ATOLL_TEST_ROW=$(ROW)) $(CARGO) test --release --locked --workspace --test main -- --nocapture --test-threads=1 hostile::

soak: test-setup ## Run good and hostile tenants mixed, with hosts killed at random (MINUTES=60; ten seconds without)
	$(if $(MINUTES),ATOLL_SOAK_MINUTES=$(MINUTES)) $(CARGO) test --release --locked --workspace --test main -- --nocapture soak::

fuzz: dev-setup ## Fuzz a parser of outside bytes: TARGET=head SECONDS=60 (the list: fuzz/fuzz_targets); needs `cargo install cargo-fuzz`
	@command -v cargo-fuzz >/dev/null || { echo "make fuzz needs cargo-fuzz:  cargo install cargo-fuzz" >&2; exit 1; }
	cp Cargo.lock fuzz/Cargo.lock
	@mkdir -p fuzz/target/corpus/$(or $(TARGET),head)
	cd fuzz && $(CARGO) fuzz run --fuzz-dir . --sanitizer none $(or $(TARGET),head) \
	  target/corpus/$(or $(TARGET),head) corpus/$(or $(TARGET),head) -- -max_total_time=$(or $(SECONDS),60) -rss_limit_mb=2048

bench: test-setup ## Run the benches next to workerd; prints a table and writes JSON (BENCH="--quick" for a short one)
	$(CARGO) bench --locked --workspace --bench side_by_side -- $(BENCH)

lint: test-setup ## Check formatting, lints and, when cargo-deny is installed, the dependency rules
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check bans licenses sources; fi

fmt: ## Format the code
	$(CARGO) fmt --all

clean: ## Remove what builds and runs leave behind
	$(CARGO) clean
	rm -rf tests/*/node_modules tests/websocket/python .atoll
