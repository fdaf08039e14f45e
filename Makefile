# `make` alone lists the commands.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PARTS  := libs/core libs/smtp services/ingress-anon services/ingress-auth services/screener services/delivery services/api libs/cli
T      ?=

.DEFAULT_GOAL := help
.PHONY: help install run test fuzz chaos outage rolling soak bench parts guard scaling sizing lint format docs clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

# Hash-checked packages first, then our own parts without looking for any dependency.
$(VENV)/run.stamp: constraints.txt $(PARTS:%=%/pyproject.toml)
	$(PYTHON) -c 'import sys; sys.exit("Postern needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation $(PARTS:%=-e ./%)
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp constraints-dev.txt
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r constraints-dev.txt
	@touch $@

install: $(VENV)/run.stamp ## Make the virtual environment with everything that Postern runs with

run: $(VENV)/run.stamp ## Start the embedded stack: broker, five services, demo smart host (Ctrl-C stops it)
	@exec $(BIN)/postern up

test: $(VENV)/dev.stamp ## Run every test (T=path::name for one)
	$(BIN)/python -m pytest $(T)

fuzz: $(VENV)/dev.stamp ## Any bytes at the parsers and at screening, guided by coverage (SECONDS=n, TARGET=name); what breaks one is kept in var/fuzz
	cd tests && ../$(BIN)/python -m fuzz.run --seconds $(or $(SECONDS),60) --target "$(TARGET)"

chaos: $(VENV)/dev.stamp ## A stack under load, a seeded schedule of faults, an audit of every 250 (SEED=n replays, STACK=compose in containers)
	cd tests && ../$(BIN)/python -m chaos.run --stack $(or $(STACK),embedded) --seconds $(or $(SECONDS_OF_LOAD),120) --plot ../var/chaos.png $(if $(SEED),--seed $(SEED))

outage: $(VENV)/dev.stamp ## The broker is away for ten minutes, then restarted twenty times: mail flows again within 10 s (AWAY=seconds)
	cd tests && ../$(BIN)/python -m chaos.outage --away $(or $(AWAY),600)

rolling: $(VENV)/dev.stamp ## Each service and the broker restarted in turn under load: how long a message waits (ROUNDS=n, ARGS="--kill")
	cd tests && ../$(BIN)/python -m chaos.rolling --rounds $(or $(ROUNDS),3) $(ARGS)

soak: $(VENV)/dev.stamp ## Hours of steady load, after which nothing has grown that should not (MINUTES=n)
	cd tests && ../$(BIN)/python -m chaos.soak --minutes $(or $(MINUTES),240)

bench: $(VENV)/dev.stamp ## Postern and its peers on this machine, < 15 min (DOCS=1 writes docs/performance.md; ARGS="--quick")
	cd tests && ../$(BIN)/python -m bench.run --json ../var/bench.json --plot $(if $(DOCS),../docs/performance.png --write-docs,../var/bench.png) $(ARGS)

parts: $(VENV)/dev.stamp ## Gate, inspection and idle stack alone against their targets, 6 min (DOCS=1 writes docs/performance.md)
	cd tests && ../$(BIN)/python -m bench.parts --json ../var/parts.json $(if $(DOCS),--write-docs) $(ARGS)

guard: $(VENV)/dev.stamp ## Has it become slower? Ratios of a minute's run against the committed ones (REFERENCE=1 renews them)
	cd tests && ../$(BIN)/python -m bench.guard $(if $(REFERENCE),--renew) $(ARGS)

scaling: $(VENV)/dev.stamp ## Cost against workers, backlog, rules, recipients, deferred rows: none worse than n log n (DOCS=1, ARGS="--curves rules")
	cd tests && ../$(BIN)/python -m bench.scaling --json ../var/scaling.json --plot $(if $(DOCS),../docs/scaling.png --write-docs,../var/scaling.png) $(ARGS)

sizing: $(VENV)/dev.stamp ## Machines for messages a day, from var/bench.json and var/scaling.json (DOCS=1 writes docs/operate/sizing.md)
	cd tests && ../$(BIN)/python -m bench.simulation && ../$(BIN)/python -m bench.simulation --sizing $(if $(DOCS),--write-docs)

lint: $(VENV)/dev.stamp ## Format check, ruff, strict types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp ## Format the code and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/dev.stamp ## Write the reference pages that are made from the code
	cd tests && ../$(BIN)/python -m reference.settings_page && ../$(BIN)/python -m reference.file_types_page

clean: ## Remove the virtual environment and caches (not ./var, which holds mail)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
