# The two commands are `make up` and `make test`; `make help` lists the rest. Everything runs from .venv, which is made from
# uv.lock the first time it is needed.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Readings that make bench measures with: a year of them.
ROWS ?= 10000000
# Rounds of make bench-tuning.
ROUNDS ?= 5

# Further arguments for ansible-playbook: make up ANSIBLE_ARGS="--inventory inventories/home --ask-become-pass"
ANSIBLE_ARGS ?=

# Ansible passes over the ansible.cfg of such a directory, and finds neither roles nor inventory.
ifneq ($(shell find . -maxdepth 0 -perm -o=w),)
$(error Every user of this machine can write to $(CURDIR), so Ansible does not use its ansible.cfg. Nothing was changed. Run \
  `chmod o-w .`, or clone again into a directory of Linux, like ~: on a disk of Windows (/mnt/c in WSL) modes cannot be changed)
endif

BIN := .venv/bin
UV := $(or $(shell command -v uv),.cache/uv/bin/uv)
MANAGE := $(BIN)/python scripts/manage_db.py
# Molecule and the linters call other programs of .venv by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# A user who is not the owner of the checkout (root, by sudo) writes no bytecode, which its owner could not remove.
ifneq ($(shell stat -c %u .),$(shell id -u))
export PYTHONDONTWRITEBYTECODE := 1
endif

# An upgrade of the system may remove the Python of .venv, or replace it by another version: then .venv is made again.
ifneq ($(wildcard .venv/.synced),)
ifneq ($(shell [ -x $(BIN)/python ] && $(BIN)/python -ISc 'import os, sys; print(os.path.isdir(".venv/lib/python%d.%d" % sys.version_info[:2]))'),True)
$(info The Python of .venv is missing: creating .venv again.)
$(shell rm -rf .venv)
endif
endif

.venv/.synced: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --frozen --quiet
	@touch $@

.cache/uv/bin/uv:
	@python3 -m venv .cache/uv
	@.cache/uv/bin/pip install --quiet 'uv>=0.9'

##@ The product

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: .venv/.synced ## Provision PostgreSQL on this machine (or ANSIBLE_ARGS="--inventory …"), schema included
	@$(BIN)/ansible-playbook playbooks/site.yml $(ANSIBLE_ARGS)

.PHONY: status
status: .venv/.synced ## Show the results of all checks of this machine (or ANSIBLE_ARGS="--inventory …": of all hosts)
	@$(BIN)/ansible-playbook playbooks/status.yml $(ANSIBLE_ARGS)

.PHONY: images
images: .venv/.synced ## Make the two images ready on this machine: found, pulled or built
	@$(BIN)/ansible-playbook playbooks/images.yml $(ANSIBLE_ARGS)

.PHONY: digests
digests: .venv/.synced ## Record the digests of the PostgreSQL images in compose/digests.json (asks the registry)
	@$(BIN)/ansible-playbook playbooks/digests.yml $(ANSIBLE_ARGS)

##@ The database (settings from the environment and .env)

.PHONY: db-test db-init db-check db-migrate db-rollback db-current db-history db-reset db-rooms db-seed migrate-create report
db-test: .venv/.synced ## Test the connection
	@$(MANAGE) test-connection
db-init: .venv/.synced ## Create the schema with migrations
	@$(MANAGE) init
db-check: .venv/.synced ## List tables and status
	@$(MANAGE) check-tables
db-migrate: .venv/.synced ## Run pending migrations
	@$(MANAGE) migrate
db-rollback: .venv/.synced ## Roll back one migration: make db-rollback [LOSE_DATA=yes]
	@$(MANAGE) rollback $(if $(filter yes,$(LOSE_DATA)),--lose-data)
db-current: .venv/.synced ## Show the current revision
	@$(MANAGE) current
db-history: .venv/.synced ## Show the migration history
	@$(MANAGE) history
db-reset: .venv/.synced ## Drop and create the schema again (destroys data; asks first)
	@$(MANAGE) reset
db-rooms: .venv/.synced ## List the rooms
	@$(MANAGE) rooms list
db-seed: .venv/.synced ## Fill a development database with generated data
	@$(MANAGE) seed
report: .venv/.synced ## Write dist/report.html, a page that shows the state of the database and of the home
	@mkdir -p dist
	@$(MANAGE) report --output dist/report.html
migrate-create: .venv/.synced ## Create a migration: make migrate-create MSG="Add new feature"
	@[ -n "$$MSG" ] || { echo 'migrate-create needs a message: make migrate-create MSG="Add new feature"' >&2; exit 2; }
	@$(MANAGE) create-migration "$$MSG"
export MSG

##@ Development

.PHONY: test test-all test-full test-fast lint format bench bench-indexes bench-backup bench-migrate bench-rooms bench-tuning bench-cli
.PHONY: docs
test: .venv/.synced ## Lint, unit and database tests, a sample of the faults, a provisioned host: make test [STAGE=unit]
	@$(BIN)/python scripts/run_tests.py test $(STAGE)
test-all: .venv/.synced ## make test, and further hosts: Debian 12, backups, a fleet, an upgrade: make test-all [STAGE=upgrade]
	@$(BIN)/python scripts/run_tests.py test-all $(STAGE)
test-full: .venv/.synced ## make test-all with every fault and corruption, and the largest imports
	@$(BIN)/python scripts/run_tests.py test-full $(STAGE)
test-fast: .venv/.synced ## Linters for Python and unit tests, in seconds
	@$(BIN)/ruff check --quiet && $(BIN)/ruff format --check --quiet && $(BIN)/mypy --no-error-summary
	@$(BIN)/pytest --quiet --numprocesses 2 --dist worksteal tests/unit
lint: .venv/.synced ## All linters
	@scripts/lint.sh
format: .venv/.synced ## Format the Python code
	@$(BIN)/ruff check --fix --quiet && $(BIN)/ruff format --quiet
bench: images ## Compare the speed with the manual's schema, some minutes: make bench [ROWS=10000000]
	@$(BIN)/python -m bench.timeseries --rows $(ROWS)
bench-indexes: images ## Compare sets of indexes on the readings: make bench-indexes [ROWS=10000000]
	@$(BIN)/python -m bench.indexes --rows $(ROWS)
bench-tuning: images ## Compare the settings with PostgreSQL's defaults and pgtune's, 15 minutes: make bench-tuning [ROUNDS=5]
	@$(BIN)/python -m bench.tuning --rounds $(ROUNDS)
bench-backup: images ## Measure backup, rehearsal and restore: make bench-backup [ROWS=10000000]
	@$(BIN)/python -m bench.backup --rows $(ROWS)
bench-migrate: images ## Measure the latency of writers during migrations: make bench-migrate [ROWS=10000000]
	@$(BIN)/python -m bench.migrate --rows $(ROWS)
bench-rooms: images ## Measure what writers notice of rooms that are added, one minute
	@$(BIN)/python -m bench.rooms
bench-cli: .venv/.synced ## Compare the time of the commands with importing SQLAlchemy and asyncpg
	@$(BIN)/python -m bench.cli
docs: .venv/.synced ## Build the documentation into dist/docs, generated pages and the roles' READMEs included
	@printf '%s\n' roles/*/ | xargs -P 4 -I{} $(BIN)/aar-doc {} markdown
	@$(BIN)/python scripts/generate_docs.py
	@$(BIN)/python scripts/generate_alerts.py
	@$(BIN)/python scripts/generate_dashboards.py
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --doctree-dir .cache/docs docs dist/docs
	@echo "dist/docs/index.html"
