# Each target sets up its own environment in .venv first; Python 3.10 or newer and make are all it needs.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# A file is one worker's, which makes each run that its tests share once; workers have processes of their own.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
CACHES := .hypothesis .import_linter_cache .mypy_cache .nox .pytest_cache .ruff_cache

# The stamp is written last and holds the checkout's path. No stamp, another path (the scripts in
# .venv/bin point at the old one), or a Python that does not start: the environment is built anew.
USABLE := $(shell test "$$(cat $(STAMP) 2>/dev/null)" = '$(CURDIR)' && $(BIN)/python -c '' 2>/dev/null && echo yes)

.DEFAULT_GOAL := test
.PHONY: metrics demo test test-all suite fuzz lint browser oldest compat bench soak docs release-check clean FORCE

demo: $(STAMP)
	$(BIN)/lightning-retrieval-guard demo

# Lint comes first, since it takes seconds; the oldest pair is tested beside the rest.
test: lint browser
	$(MAKE) --no-print-directory -j 2 suite oldest

# What takes hours as well: all numbers of ranks, programs and modes, fuzz, soak and every supported pair.
test-all: lint browser
	$(PYTEST) -m ''
	$(MAKE) --no-print-directory docs fuzz soak compat

suite: $(STAMP)
	$(PYTEST)

# 10,000 examples of each test with random data, for a night.
fuzz: $(STAMP)
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest --timeout=0 tests/fuzz

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.sizes

# Tests look at the HTML report in Chromium. Without one they are skipped, or fail where CI=true.
browser: $(STAMP)
	@$(BIN)/python -m tests.report.browser || sh tests/report/install_chromium.sh

# Tests in the oldest versions that are supported, in an environment of their own.
oldest: $(STAMP)
	$(BIN)/nox --reuse-existing-virtualenvs --session 'compat(oldest)'

# The same in all versions, with Python 3.10 to 3.13, which must be there; writes docs/compatibility.md.
compat: $(STAMP)
	$(BIN)/nox --session compat unpinned page

# Every metric of torchmetrics on unequal ranks, some 20 minutes; writes docs/metrics.md.
metrics: $(STAMP)
	$(BIN)/python -m tests.metrics.page

bench: $(STAMP)
	$(PIP) install -c constraints-dev.txt -e '.[bench]'
	$(BIN)/python -m bench

# 2,000 epochs on two processes, a quarter of an hour at most.
soak: $(STAMP)
	$(BIN)/python -m tests.soak

# The pages as a site, in build/site; a warning is an error.
docs: $(STAMP)
	$(PIP) install -c constraints-dev.txt -e '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site
	@echo 'Open build/site/index.html'

# What is released: built, checked, and installed in fresh environments, where the demo runs. Publishes nothing.
release-check: $(STAMP)
	$(PIP) install -c constraints-dev.txt -e '.[release]'
	$(BIN)/python -m tools.release_check

clean:
	rm -rf $(VENV) build dist lightning_logs reports $(CACHES) *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

ifneq ($(USABLE),yes)
$(STAMP): FORCE
endif

$(STAMP): pyproject.toml constraints-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=...")'
	@rm -f $@
	@echo 'Setting up $(VENV): a few minutes the first time'
	test -n '$(USABLE)' -a -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) install -c constraints-dev.txt torch==2.13.0
	$(PIP) install -c constraints-dev.txt -e '.[dev]'
	@printf '%s\n' '$(CURDIR)' > $@
