# make quickstart   environment, clips, training, test, prediction, report
# make test         environment, all quick tests
# make test-avx2, make test-baseline   tests of ops and networks as an older processor
# make fuzz         damaged files, killed processes, full disks (FUZZ_CASES=, FUZZ_MINUTES= of each part, FUZZ_PART=)
# make sanitize     tests of the native operators under AddressSanitizer and UndefinedBehaviorSanitizer
# PYTHON chooses the interpreter the environment is made from, VENV its folder.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    := $(BIN)/saccade
NATIVE := $(wildcard src/saccade/ops/native/*)

# PyTorch for CUDA brings a Triton along. With one for a CPU this one runs and compiles GPU kernels in the tests.
TRITON = $(BIN)/pip install -q --disable-pip-version-check --no-deps triton==3.6.0

.PHONY: quickstart test test-avx2 test-baseline test-slow test-gpu fuzz sanitize lint format bench bench-gpu docs clean
.DEFAULT_GOAL := quickstart

quickstart: $(VENV)/.base
	$(RUN) quickstart

# Two processes of one thread each: each has half of the tests, and the first to end takes over some of the other's.
# One that dies is not replaced, so that the run ends, with the name of the test; a test that hangs dies by
# faulthandler_timeout (pyproject.toml).
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --max-worker-restart=0 -m "not slow and not gpu"

test: $(VENV)/.dev
	$(PYTEST) $(PYTEST_ARGS)

# As an older processor: PyTorch, its oneDNN and the native operators each have a switch of their own. Freed memory
# is overwritten, which shows a use of it.
test-avx2: $(VENV)/.dev
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 SACCADE_ISA=avx2 MALLOC_PERTURB_=85 \
		$(PYTEST) $(or $(TESTS),tests/ops tests/layers tests/models tests/training) $(PYTEST_ARGS)

# Without what is the same on every processor: Triton's interpreter, and compiled networks in PyTorch's own code.
test-baseline: $(VENV)/.dev
	ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default SACCADE_ISA=baseline MALLOC_PERTURB_=85 \
		$(PYTEST) $(or $(TESTS),tests/ops tests/layers tests/models/test_x3d.py tests/models/test_vov3d.py) \
		-k "not triton and not compile" $(PYTEST_ARGS)

test-slow: $(VENV)/.dev
	$(BIN)/pytest -m "slow and not gpu" -o faulthandler_timeout=3600 $(PYTEST_ARGS)

test-gpu: $(VENV)/.dev
	FAIL_WITHOUT_CUDA=1 $(BIN)/pytest -m gpu $(PYTEST_ARGS)

fuzz: $(VENV)/.dev
	$(BIN)/python -m tools.fuzz $(FUZZ_PART) $(FUZZ_CASES:%=--cases %) $(FUZZ_MINUTES:%=--minutes %)

# Every instruction set that this processor has, side by side, one process each: the sanitizers end it at the first
# finding.
SANITIZED = build/sanitize/saccade/ops/_native.so
PRELOAD   = $(shell for f in libasan.so libubsan.so libstdc++.so; do gcc -print-file-name=$$f; done)
$(SANITIZED): setup.py $(NATIVE) | $(VENV)/.dev
	SACCADE_SANITIZE=1 $(BIN)/python setup.py -q build_ext --build-lib build/sanitize --build-temp build/sanitize/o

sanitize: $(VENV)/.dev $(SANITIZED)
	for isa in $$(nm -D $(SANITIZED) | sed -n 's/.* saccade_\(.*\)_shift3d_forward$$/\1/p'); do \
		LD_PRELOAD="$(PRELOAD)" ASAN_OPTIONS=detect_leaks=0 SACCADE_NATIVE_LIBRARY=$(CURDIR)/$(SANITIZED) SACCADE_ISA=$$isa \
		OMP_NUM_THREADS=1 $(BIN)/pytest -q -m "not slow and not gpu" -k "native and not compile and not export" \
		tests/ops/test_batch_norm_act.py tests/ops/test_depthwise_conv3d.py tests/ops/test_shift.py & \
		started="$$started $$!"; \
	done; \
	for process in $$started; do wait $$process || failed=1; done; exit $${failed:-0}

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

bench-gpu: $(VENV)/.dev
	$(BIN)/python -m benchmarks.gpu --out benchmarks/results/gpu

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -q -b html docs build/docs
	@echo "the pages are in build/docs/index.html"

# torch goes in first and pinned: anything else would bring several GB of CUDA packages.
$(VENV)/.base: pyproject.toml constraints.txt setup.py $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@$(BIN)/python -c "import triton" 2>/dev/null || $(TRITON) || echo "no Triton: its tests will be skipped"
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[bench]"
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
