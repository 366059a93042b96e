# SPDX-License-Identifier: Apache-2.0
# `make` lists the targets. Each does its own set-up in .venv and is quick when that is done already.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard mcts_ext/*.pyx mcts_ext/*.pxd) mcts_ext/contract.py setup.py

export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help build run test stack bench debug sanitize check clean

FUZZ_SECONDS ?= 600
engine_tests = $(addsuffix .py,$(addprefix tests/mcts_ext/test_,$(1)))
DEBUGGED_TESTS := $(call engine_tests,rules rules_twin determinize observe search maxn pool games pimc tables)
SANITIZED_TESTS ?= $(DEBUGGED_TESTS) $(call engine_tests,rng weighing numbers arguments)
# The sanitizers come with the compiler, and before anything else in the process. Python's own allocator would hide what
# is read past an end. Leaks are left to test_pool.py: Python itself frees little at its end. Left out is what limits
# time or the address space (test_memory.py): AddressSanitizer is slow, and takes terabytes of the latter.
SANITIZED = PYTHONPATH=build/sanitized:. PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:abort_on_error=0 \
  UBSAN_OPTIONS=print_stacktrace=1 LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)"

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.dependencies: pyproject.toml constraints.txt requirements.lock docker/requirements.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
	  || { echo "expected Python 3.11 or 3.12 as $(PYTHON); set PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "expected a working venv module; on Debian: apt install python3-venv python3-dev gcc make" >&2; exit 1; }
	@$(BIN)/python docker/requirements.py dev >$(VENV)/wanted.txt
	$(BIN)/pip install -q --require-hashes -r $(VENV)/wanted.txt
	$(BIN)/pip install -q -c constraints.txt torch # no hash holds everywhere: docker/requirements.py
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.extension: $(VENV)/.dependencies $(SOURCES)
	$(BIN)/python setup.py -q build_ext --inplace -j 2
	@touch $@

build: $(VENV)/.extension  ## virtual environment, dependencies, the Cython extension

run: build  ## serve a network from a real Triton and play a thousand rounds against it
	blobzero publish --preset reference --if-absent
	blobzero selfplay --rounds 1000 --minutes 2 --players 4 --cards 5 --determinizations 3 --simulations 30

test: build  ## rules, search, and the path over gRPC to a real Triton
	pytest -n 2 --dist loadfile --ignore tests/stack -m 'not timing'
	pytest --ignore tests/stack -m timing

stack: build  ## the containers on a real Docker engine, from up to down; skipped where none answers
	pytest tests/stack

bench: build  ## measure rules, search, inference, self-play and search quality (about half an hour)
	blobzero bench all

debug: build  ## the engine's tests with checks of indices and divisions compiled in
	BLOBZERO_DEBUG=1 $(BIN)/python setup.py -q build_ext --inplace --force
	pytest -n 2 $(DEBUGGED_TESTS); \
	  status=$$?; $(BIN)/python setup.py -q build_ext --inplace --force; exit $$status

sanitize: build  ## the engine's tests, and a fuzzer over extreme settings, under AddressSanitizer and UBSan
	BLOBZERO_SANITIZE=1 $(BIN)/python setup.py -q build_ext -j 2 --build-lib build/sanitized --build-temp build/objects
	cp mcts_ext/*.py mcts_ext/*.pxd build/sanitized/mcts_ext/
	$(SANITIZED) python -P -m tests.support.fuzz_engine --seconds $(FUZZ_SECONDS)
	$(SANITIZED) pytest -o pythonpath="build/sanitized ." -m 'not slow and not timing' -k 'not stay_fast' $(SANITIZED_TESTS)

check: build  ## lint and types
	ruff check .
	ruff format --check .
	cython-lint mcts_ext
	mypy
	python -m mypy.stubtest mcts_ext --allowlist tests/stubtest_allowlist.txt

clean:  ## remove what the build made
	rm -rf build *.egg-info $(VENV) mcts_ext/*.c mcts_ext/*.so mcts_ext/contract.pxd
