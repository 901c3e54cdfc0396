# Everything a newcomer needs on a machine with Python >= 3.11. Each target makes .venv by itself.

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast faults chaos tox lint format docs bench constraints servers clean

# The first of these that runs and is new enough.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
BIN := .venv/bin

# Where the machine says that no bytecode is written, each of the hundreds of processes that tests start would compile all
# it imports once more: half of their time. It is kept beside the packages, and the tree stays clean.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/pycache

# Many tests wait for real processes and servers: four at a time fill two cores, and each of them keeps servers in memory.
# `make test PARALLEL=` runs one by one.
PARALLEL ?= -n 4 --dist loadfile --no-loadscope-reorder

# What is worth a run after each change: a minute or somewhat more on two cores, with nothing but Python. Each process more
# reads all files anew.
FAST ?= -n 3 --dist worksteal
FAST_TESTS := tests/unit tests/docs/test_rooms.py tests/docs/test_internals.py tests/faults/test_mutations.py

# Debian packages that the tests' servers and browser come in. Each test session starts servers of its own on free ports.
DEBIAN_PACKAGES := postgresql postgresql-15-cron pgbouncer redis-server rabbitmq-server \
	chromium-headless-shell fonts-inter fonts-jetbrains-mono

help:
	@echo "make demo        a real application's jobs, running here for a while, with their dashboard"
	@echo "make test        every test"
	@echo "make faults      the whole fault programme: every fault on every store, some minutes"
	@echo "make chaos       processes killed and cut off at random: SEED=7 SECONDS=45 STORE=postgres SEEDS=10"
	@echo "                 with local, Celery and pg_cron in turn: BACKENDS=mixed"
	@echo "make test-fast   what needs no server and no process: a minute or two"
	@echo "make tox         the whole gate: lint, types, layers, three Pythons, oldest versions, wheel, docs"
	@echo "make lint        style, types and layers only"
	@echo "make format      rewrite the files in the project's form"
	@echo "make docs        the pages, into docs/_build/html"
	@echo "make bench       our figures beside peers"
	@echo "make constraints the versions the gate runs with, resolved anew"

.venv/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found. Name one: make PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment (on Debian: apt install python3-venv)"; exit 2; }
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/.package: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/.web: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[web]'
	@touch $@ .venv/.package

.venv/.demo: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[web]' --group demo
	@touch $@ .venv/.package .venv/.web

.venv/.tests: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group test
	@touch $@ .venv/.package .venv/.web .venv/.demo

.venv/.tools: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $@ .venv/.tests .venv/.package .venv/.web .venv/.demo

# As root it installs what is missing, and chromium where none without windows can be had; otherwise it says what is, and those tests are skipped with their reason.
servers:
	@missing=""; for package in $(DEBIAN_PACKAGES); do \
		dpkg -s "$$package" >/dev/null 2>&1 || missing="$$missing $$package"; done; \
	if [ -z "$$missing" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; install="apt-get install -y -qq --no-install-recommends"; apt-get update -qq; \
		$$install $$missing || $$install $$(echo "$$missing" | sed s/chromium-headless-shell/chromium/); \
	else echo "Not installed, so their tests are skipped:$$missing"; fi

demo: .venv/.demo
	@$(BIN)/python -m examples.saas.demo

test: .venv/.tests servers
	@$(BIN)/python -m pytest $(PARALLEL) -m "not faults" $(ARGS)

test-fast: .venv/.tests
	@$(BIN)/python -m pytest $(FAST) -m "not slow and not faults and not servers" $(FAST_TESTS) $(ARGS)

# Its tests are long and few, so each goes to whichever process is free.
faults: .venv/.tests servers
	@$(BIN)/python -m pytest $(PARALLEL) --dist worksteal tests/faults $(ARGS)

chaos: .venv/.tests servers
	@$(BIN)/python tests/faults/chaos/run.py $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) \
		--seconds $(or $(SECONDS),45) $(if $(STORE),--store $(STORE)) $(if $(BACKENDS),--backends $(BACKENDS))

tox: .venv/.tools servers
	@$(BIN)/tox run $(ARGS)

lint: .venv/.tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python tests/typing/complete.py
	$(BIN)/lint-imports --no-cache

format: .venv/.tools
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: .venv/.tools
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: .venv/.tests
	@$(BIN)/python benchmarks/run.py $(ARGS)

# No hashes and no index URLs: the file must mean the same behind every mirror.
constraints: .venv/.tools
	$(BIN)/uv pip compile --quiet --universal --upgrade --no-header --no-emit-index-url --no-annotate \
		--python-version 3.11 --all-extras --group dev pyproject.toml --output-file constraints.txt

clean:
	rm -rf .venv .tox build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
