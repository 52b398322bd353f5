# Every target makes the virtual environment that it needs; `make help` lists them.

SHELL := /bin/sh
PYTHON := .venv/bin/python
READY := .venv/.ready
FUZZ_SECONDS ?= 60
SOAK_RUNS ?= 200000

NATIVE := runner/native
NATIVE_LIBRARY := $(filter-out $(NATIVE)/main.c,$(wildcard $(NATIVE)/*.c))
NATIVE_HEADERS := $(NATIVE)/cflags \
    $(wildcard $(NATIVE)/*.h $(NATIVE)/tests/*.h $(NATIVE)/fuzz/*.c)
NATIVE_TESTS := $(patsubst $(NATIVE)/tests/%.c,build/native/%,$(wildcard $(NATIVE)/tests/test_*.c))
C_FILES = $(shell find runner tests bench -name '*.[ch]')
SANITIZERS := -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all

# The interpreter for .venv: Debian's where it will do, because other users can run that one too.
PYTHON3 ?= $(shell for python in /usr/bin/python3 python3; do \
    "$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
        && echo "$$python" && exit; done; echo python3)

.PHONY: help build demo test test-unit test-kernel lint fmt type analyze sanitize fuzz policies bench accuracy compare soak check clean
.DEFAULT_GOAL := help

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(READY): pyproject.toml setup.py
	@PYTHON3=$(PYTHON3) .ci/need python3=python3 python:ensurepip=python3-venv gcc=gcc \
	    musl-gcc=musl-tools libseccomp.so.2=libseccomp2 setpriv=util-linux
	@[ -x $(PYTHON) ] || $(PYTHON3) -m venv .venv
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

build: $(READY) ## compile the helper beside the package
	@$(PYTHON) setup.py --quiet build_ext --inplace

demo: build ## judge the example submissions on two workers
	@.ci/need g++=g++ javac=default-jdk-headless python3=python3
	@$(PYTHON) worker.py --demo examples

test: build ## run every test; where we are root, as a plain user and in a user namespace too
	@.ci/need g++=g++ javac=default-jdk-headless newuidmap=uidmap pasta=passt ip=iproute2
	@status=0; $(PYTHON) -m pytest || status=1; \
	if [ "$$(id -u)" = 0 ]; then \
	    echo; echo 'The same again as uid 65534:'; \
	    .ci/as-user .venv/bin/python -m pytest -p no:cacheprovider || status=1; \
	    echo; echo 'What needs a kernel once more, as the root of a user namespace:'; \
	    .ci/as-user unshare -Ur .venv/bin/python -m pytest -p no:cacheprovider \
	        tests/kernel tests/hostile tests/cli || status=1; \
	fi; exit $$status

test-unit: build ## run the tests that need no privileges
	@$(PYTHON) -m pytest tests/unit

test-kernel: build ## run the tests that need namespaces and cgroups
	@$(PYTHON) -m pytest tests/kernel $(wildcard tests/hostile)

lint: $(READY) ## find mistakes and bad style in Python, bad format everywhere
	@status=0; $(PYTHON) -m ruff format --check || status=1; \
	$(PYTHON) -m ruff check || status=1; \
	.venv/bin/clang-format --dry-run --Werror $(C_FILES) || status=1; exit $$status

fmt: $(READY) ## format Python and C
	@$(PYTHON) -m ruff format
	@.venv/bin/clang-format -i $(C_FILES)

type: $(READY) ## check types with mypy, strictly
	@$(PYTHON) -m mypy

analyze: ## run cppcheck and gcc's analyzer on the helper
	@.ci/need gcc=gcc cppcheck=cppcheck
	@cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
	    --suppress=missingIncludeSystem --error-exitcode=1 $(NATIVE)/*.c
	@for source in $(NATIVE)/*.c; do \
	    gcc @$(NATIVE)/cflags -Werror -O2 -fanalyzer -c -o /dev/null "$$source" || exit 1; \
	done
	@echo 'analyze: nothing found'

sanitize: $(NATIVE_TESTS) ## run the helper's unit tests under ASan and UBSan
	@status=0; for test in $(NATIVE_TESTS); do \
	    "$$test" >"$$test.log" 2>&1 || { cat "$$test.log"; status=1; }; \
	    grep -q '^not ok' "$$test.log" && status=1; \
	    echo "$$test: $$(grep -c '^ok' "$$test.log") checks ok"; \
	done; exit $$status

# A test is a program: tests/test_NAME.c and the whole helper but main.c. It prints a line
# "ok - what" or "not ok - what" for each check, and exits non-zero if one failed.
build/native/%: $(NATIVE)/tests/%.c $(NATIVE_LIBRARY) $(NATIVE_HEADERS)
	@.ci/need gcc=gcc
	@mkdir -p $(@D)
	@gcc @$(NATIVE)/cflags -Werror $(SANITIZERS) -I$(NATIVE) $< $(NATIVE_LIBRARY) -o $@

fuzz: ## feed the helper's decoder with random plans for FUZZ_SECONDS
	@.ci/need clang=clang
	@mkdir -p build/fuzz/corpus
	@clang @$(NATIVE)/cflags $(SANITIZERS) -fsanitize=fuzzer -I$(NATIVE) \
	    $(NATIVE)/fuzz/fuzz_plan.c $(NATIVE_LIBRARY) -o build/fuzz/fuzz_plan
	@build/fuzz/fuzz_plan -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/ build/fuzz/corpus $(NATIVE)/fuzz/corpus

policies: build ## compile the stock policies into the package
	@$(PYTHON) -m runner.seccomp

bench: build ## measure against bare vfork, exec and wait; one benchmark at a time
	@$(PYTHON) -m pytest bench -q --timeout=600 -o python_files='bench_*.py' \
	    --benchmark-columns=median,min,iqr,rounds

accuracy: build ## measure how right the figures are, and how late the kills; draws pictures
	@.ci/need musl-gcc=musl-tools javac=default-jdk-headless node=nodejs
	@$(PYTHON) -m bench.accuracy

compare: build ## measure against bwrap, crun and firejail, and what each guarantee costs
	@.ci/need gcc=gcc javac=default-jdk-headless bwrap=bubblewrap crun=crun firejail=firejail
	@$(PYTHON) -m bench.compare

soak: build ## run SOAK_RUNS programs, half of them hostile, and see that nothing is left
	@.ci/need musl-gcc=musl-tools
	@$(PYTHON) -m bench.soak --runs $(SOAK_RUNS)

check: lint type analyze sanitize ## everything that needs no run of the package

clean: ## remove what was built, but for .venv
	rm -rf build dist *.egg-info runner/keeper .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find runner tests bench -name __pycache__ -prune -exec rm -rf {} +
