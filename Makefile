# Needs a Rust toolchain and a C compiler; `make test` installs what else it uses (tools/install.sh).

export CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TERM_COLOR ?= never

# mold links several times faster. One choice for every target, so that nothing is built twice.
MOLD := $(shell echo 'int main(void){return 0;}' | cc -fuse-ld=mold -x c - -o /dev/null 2>&1 || echo absent)
ifeq ($(MOLD),)
export RUSTFLAGS ?= -C link-arg=-fuse-ld=mold
endif

TAILRACE := $(CARGO_TARGET_DIR)/production/tailrace
FLOOR_DIR ?= $(CARGO_TARGET_DIR)/floor
BENCH_OUT ?= $(CARGO_TARGET_DIR)/bench
ROUNDS ?= 5
FUZZ_SECONDS ?= 60
SEEDS ?= 500

.PHONY: run test steps test-rust lint build production bench-floor bench-reactor bench-kafka bench-partitions bench-recovery bench-bandwidth\
	bench-recycling bench-budget bench-micro fuzz sim

# Without the bench feature: glommio's C part stays out of the broker's build.
run:
	cargo build --profile production --locked --package tailrace --no-default-features
	exec $(TAILRACE) dev

# Everything CI runs. Tools first: whether mold is there decides the flags of all that follows.
test:
	tools/install.sh
	@$(MAKE) --no-print-directory steps

steps:
	@tools/test.sh

test-rust:
	cargo test --release --locked --workspace

lint:
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- --deny warnings

build:
	cargo build --release --locked --workspace

# What to deploy, and what the benchmarks run.
production:
	cargo build --profile production --locked --package tailrace --package perf

bench-floor: production
	mkdir -p $(FLOOR_DIR)
	$(TAILRACE) bench floor --data-dir $(FLOOR_DIR)

bench-reactor: production
	mkdir -p $(FLOOR_DIR)
	$(TAILRACE) bench reactor --data-dir $(FLOOR_DIR)

# With JSON and, where there is one, an HTML report in BENCH_OUT; ROUNDS=1 for a quick look.
bench-kafka: production
	mkdir -p $(BENCH_OUT)
	tools/bench/kafka.sh --rounds $(ROUNDS) --json $(BENCH_OUT)/kafka.json --html $(BENCH_OUT)/kafka.html

bench-partitions bench-recovery bench-bandwidth bench-recycling bench-budget: bench-%: production
	mkdir -p $(BENCH_OUT)
	tools/bench/run.sh $* --rounds $(ROUNDS) --json $(BENCH_OUT)/$*.json

# Frame encode and group commit; request decode, batch validation, fetch response.
bench-micro:
	cargo bench --locked --package wal-uring --package kafka-wire

fuzz:
	tools/fuzz/run.sh $(FUZZ_SECONDS)

# Both scenarios. All of the workspace is built: another choice of features would build it twice.
sim: build
	$(CARGO_TARGET_DIR)/release/sim --seeds $(SEEDS)
