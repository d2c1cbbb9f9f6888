# Everything is made inside the repository; Python packages go into .venv.

PYTHON ?= python3
PYTEST_ARGS ?=
OPERATIONS ?= 100000
BENCH_ARGS ?=

BIN := .venv/bin
BASH_FILES := $(wildcard shell/*.sh shell/*.bash) $(filter-out %.py,$(wildcard scripts/*)) .ci/run
PACKAGES := git zsh fish direnv shellcheck strace dash ksh busybox \
  nginx postgresql redis-server docker-compose

MAKEFLAGS += --no-print-directory

.PHONY: help demo test test-skypilot test-claude lint bench completions readme soak clean
.DEFAULT_GOAL := help

help:  ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

demo: .venv/base  ## show the main job on a repository made on the spot
	@scripts/demo

test: .venv/dev  ## install what the tests need, and run them (PYTEST_ARGS="-k lease")
	@scripts/packages $(PACKAGES)
	@echo "testing"
	@$(BIN)/pytest -q -n auto $(PYTEST_ARGS)

test-skypilot: .venv/dev .venv/skypilot/bin/sky  ## install SkyPilot, and run two servers of it
	@echo "testing with SkyPilot"
	@ISOENV_TEST_SKY=$(CURDIR)/.venv/skypilot/bin $(BIN)/pytest -q -m skypilot $(PYTEST_ARGS)

test-claude: .venv/dev .venv/claude/node_modules/.bin/claude  ## install Claude Code, and run it with a stand-in for the model
	@echo "testing with Claude Code"
	@ISOENV_TEST_CLAUDE=$(CURDIR)/.venv/claude/node_modules/.bin/claude $(BIN)/pytest -q -m claude $(PYTEST_ARGS)

lint: .venv/dev  ## check style, types and shell scripts
	@scripts/packages $(PACKAGES)
	@echo "ruff check"; $(BIN)/ruff check -q
	@echo "ruff format"; $(BIN)/ruff format -q --check
	@echo "mypy"; $(BIN)/mypy --no-error-summary
	@echo "shellcheck"; shellcheck $(BASH_FILES)
	@echo "zsh -n"; for file in $(wildcard shell/*.zsh); do zsh -n $$file || exit 1; done
	@echo "fish --no-execute"; for file in $(wildcard shell/*.fish); do fish --no-execute $$file || exit 1; done
	@echo "completions"; scripts/completions --check
	@echo "README.md"; $(BIN)/python scripts/readme.py --check

bench: .venv/dev  ## measure, side by side with direnv and mise
	@$(BIN)/python bench/run $(BENCH_ARGS)

completions: .venv/base  ## write completions/ anew
	@echo "completions"; scripts/completions

readme: .venv/base  ## run the transcripts of README.md anew
	@$(BIN)/python scripts/readme.py

soak: .venv/dev  ## OPERATIONS random operations on leases, many of them killed in the middle
	@$(BIN)/python tests/soak.py --operations $(OPERATIONS)

clean:  ## remove what was made
	@rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: what `make demo` needs, and on top of it what tests and linters need.
.venv/base: pyproject.toml shell/isoenv.sh
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "isoenv needs Python 3.11, this is $$($(PYTHON) --version): \`make PYTHON=…\`" >&2; exit 1; }
	@PYTHON=$(PYTHON) scripts/packages python3-venv
	@echo "installing isoenv into .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -q --editable .
	@touch $@

.venv/dev: .venv/base
	@echo "installing the tools for tests and lint into .venv"
	@$(BIN)/python -m pip install -q --group dev
	@touch $@

.venv/skypilot/bin/sky: .venv/base
	@echo "installing SkyPilot into .venv/skypilot"
	@$(PYTHON) -m venv .venv/skypilot
	@.venv/skypilot/bin/python -m pip install -q --disable-pip-version-check 'skypilot>=0.14,<0.15'
	@touch $@

.venv/claude/node_modules/.bin/claude: .venv/base
	@echo "installing Claude Code into .venv/claude"
	@npm install --silent --no-audit --no-fund --prefix .venv/claude @anthropic-ai/claude-code
	@touch $@
