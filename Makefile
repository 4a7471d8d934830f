# make help lists what can be done. State of the local cloud is in .local, downloads are in the user's cache.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PATH := $(PATH):$(HOME)/.cargo/bin
CLOUD := python3 local/cloud.py
DEPLOY := python3 local/deploy.py
FROM := 2024-07-01
TO := 2024-09-29
MESSAGES := 5000

.PHONY: help run test test-faults bench package up down env check build servers loaded

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

run: ## From a fresh clone to a finished run, with about 5,000 messages over 90 days
	@$(MAKE) up
	@$(MAKE) loaded
	@eval "$$($(CLOUD) env)" && alert-archive run --from $(FROM) --to $(TO) --wait && python3 local/where.py

up: ## Start the local cloud and deploy; no documents are loaded
	@$(MAKE) -j2 build servers
	@$(DEPLOY) all

down: ## Stop the local cloud and wipe it
	@$(CLOUD) down

env: ## Print what points any AWS tool at the local cloud: eval "$(make -s env)"
	@$(CLOUD) env

test: ## Check everything that CI checks
	@python3 local/check.py all

test-faults: ## Run the whole fault campaign, of which CI runs a part
	@python3 local/check.py faults

check: ## Check what needs no cloud: format, lints, unit tests, Terraform
	@python3 local/check.py quick

bench: up ## Measure time and size against the number of messages
	@eval "$$($(CLOUD) env)" && bench/run

package: ## Build the zips for AWS (arm64 where cargo-lambda is installed)
	@python3 local/package.py

build:
	@{ command -v cargo && command -v cc; } >/dev/null || $(CLOUD) tools
	@cargo build --workspace --locked

servers:
	@$(CLOUD) tools && $(CLOUD) up && $(DEPLOY) storage

loaded:
	@eval "$$($(CLOUD) env)" && fixtures load --url "$$OPENSEARCH_URL" --seed 1 --count $(MESSAGES) --from $(FROM) --to $(TO) --if-empty
