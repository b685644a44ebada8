# The commands of everyday work. The build itself is CMake's: CMakePresets.json names its variants.

PROGRAMS := kvs-node kvs-client kvs-loadgen
JOBS     := $(shell nproc)
ADDR     := 127.0.0.1:4000
DATA_DIR := ./kvs-data
MINUTES  := 10
FUZZERS   = $(words $(filter-out %/fuzz_replay.c,$(wildcard tests/fuzz/fuzz_*.c)))
FUZZ_SECONDS ?= $(shell echo $$(( $(MINUTES) * 60 * 2 / $(FUZZERS) + 1 )))
SOURCES   = $(shell find src tools tests bench perf -name '*.[ch]' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help run build test canaries fuzz deps test-deps format check-format lint clean

help: ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: build ## build, and run a node on ADDR, its data in DATA_DIR; ARGS="..." adds options
	@exec build/release/kvs-node --addr $(ADDR) --data-dir $(DATA_DIR) $(ARGS)

build: deps ## build the programs as they run in production, in build/release
	@cmake --preset release >/dev/null
	@cmake --build --preset release --target $(PROGRAMS)

test: test-deps ## build everything and run every test
	@cmake --preset release >/dev/null
	@cmake --build --preset release
	@ctest --preset release -j$(JOBS)

fuzz: test-deps ## run every fuzzer, MINUTES in all (or FUZZ_SECONDS each), from the kept corpus; findings in build/fuzz/findings
	@cmake --preset fuzz >/dev/null
	@cmake --build --preset fuzz
	@tests/fuzz/run_fuzzers.sh build/fuzz $(FUZZ_SECONDS)

canaries: build test-deps ## wake each deliberate bug in turn: some test has to catch it; ARGS="..." adds options
	@tests/canaries/run_canaries.py --release build/release/kvs-node $(ARGS)

deps: ## install what building needs (Debian)
	@scripts/install-dependencies.sh

test-deps: ## install what testing needs (Debian)
	@scripts/install-dependencies.sh test

format: test-deps ## format the C code
	@clang-format -i $(SOURCES)

check-format: test-deps ## complain about C code that is not formatted
	@clang-format --dry-run --Werror $(SOURCES)

lint: check-format ## clang-tidy, and check-format
	@cmake --preset release >/dev/null
	@printf '%s\n' $(filter %.c,$(SOURCES)) | xargs -P$(JOBS) -n1 clang-tidy --quiet -p build/release

clean: ## remove everything that was built; data directories stay
	@rm -rf build
