# make help lists what can be done. State of the local cloud is in .local, downloads are in the user's cache.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PATH := $(PATH):$(HOME)/.cargo/bin
CLOUD := python3 local/cloud.py
DEPLOY := python3 local/deploy.py
# opensearch, api or hybrid; empty for what the last `make up` chose.
export SOURCE
# release: what goes to AWS, for measurements; else the profile of daily work.
export PROFILE
# A hybrid run crosses the border between OpenSearch and the API, which moves with the day.
DAYS_AGO = $(shell python3 -c 'import datetime as d; print((d.datetime.now(d.UTC) - d.timedelta($(1))).date())')
FROM := $(if $(filter hybrid,$(SOURCE)),$(call DAYS_AGO,90),2024-07-01)
TO := $(if $(filter hybrid,$(SOURCE)),$(call DAYS_AGO,0),2024-09-29)
MESSAGES := 5000
# For the tf-* targets: infra/environments/<ENVIRONMENT>.tfvars, in a Terraform workspace of its own.
ENVIRONMENT := production
VAR_FILE = infra/environments/$(ENVIRONMENT).tfvars
PLAN = $(CURDIR)/target/terraform/$(ENVIRONMENT).tfplan
TERRAFORM = terraform -chdir=infra

.PHONY: help run test test-faults test-engines test-page simulate bench bench-quick bench-paths bench-accept bench-feeds bench-logs package up down env check build servers loaded tf-init tf-validate tf-plan tf-apply tf-destroy var-file

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: ## From a fresh clone to a finished run, with about 5,000 messages over 90 days
	@$(MAKE) up
	@$(MAKE) loaded
	@eval "$$($(CLOUD) env)" && alert-archive run --from $(FROM) --to $(TO) --wait && python3 local/where.py

up: ## Start the local cloud and deploy; no documents are loaded. SOURCE=opensearch, api or hybrid; PROFILE=release
	@$(MAKE) -j2 build servers
	@$(CLOUD) api
	@$(DEPLOY) all

down: ## Stop the local cloud and wipe it
	@$(CLOUD) down

env: ## Print what points any AWS tool at the local cloud: eval "$(make -s env)"
	@$(CLOUD) env

test: ## Check everything that CI checks
	@python3 local/check.py all

test-faults: ## Run the whole fault campaign, of which CI runs a part
	@python3 local/check.py faults

test-engines: ## Ask Trino, Spark and pandas what docs/ let Athena, Spark and pandas ask; needs Java 17 or 21, and 24 or 25, and downloads 1 GB
	@python3 local/check.py engines

test-page: ## Look at page and mail in Chromium, with axe; needs Node 20, npm and chromium (Debian: apt install nodejs npm chromium)
	@command -v node npm >/dev/null && [ -x "$${CHROMIUM:-/usr/bin/chromium}" ] || { echo "node, npm or chromium is missing" >&2; exit 1; }
	@cd web/test && npm ci --ignore-scripts --no-audit --no-fund --silent && npm test

check: ## Check what needs no cloud: format, lints, unit tests, Terraform
	@python3 local/check.py quick

SEEDS ?= 5000
simulate: ## Try SEEDS histories of runs that die, sleep, wake and meet; SEED=k replays one and shortens it
	@cargo run --quiet --locked -p simulation --bin simulate -- --seeds $(SEEDS)

bench: ## Measure all that bench/RESULTS.md tells, with release binaries, and say how long each part took
	@ALERT_ARCHIVE_LOCAL_COPIES=false $(MAKE) up PROFILE=release
	@eval "$$($(CLOUD) env)" && PROFILE=release bench/all

bench-quick: ## The same with fewer messages, in minutes where the release binaries are built
	@ALERT_ARCHIVE_LOCAL_COPIES=false $(MAKE) up PROFILE=release
	@eval "$$($(CLOUD) env)" && PROFILE=release bench/all --quick

# With the features of the whole workspace and of its tests, as CI builds it.
HOT_PATHS := cargo build --quiet --locked --workspace --bin hot-paths --test rooms
bench-paths: ## Count the instructions of the hot paths, and compare them with bench/instructions.json; needs valgrind
	@$(HOT_PATHS)
	@bench/instructions

bench-accept: ## Write bench/instructions.json anew, where hot paths are meant to do more, or do less
	@$(HOT_PATHS) && bench/instructions --accept
	@export CARGO_INCREMENTAL=0 && $(HOT_PATHS) && bench/instructions --accept

bench-feeds: ## Measure partner feeds against Python and cat, and write bench/feeds.json
	@cargo build --package fixtures && cargo build --release --package consolidate-feeds --example bench_consolidate
	@bench/feeds

bench-logs: ## Measure extraction from logs against zcat | grep -c and Python, and its memory
	@bench/logs/run

package: ## Build the zips for AWS (arm64 where cargo-lambda is installed)
	@python3 local/package.py

tf-init: var-file ## Prepare Terraform for ENVIRONMENT (default: production)
	@$(TERRAFORM) init -input=false $$(python3 local/deploy.py plugin-dir)
	@$(TERRAFORM) workspace select -or-create $(ENVIRONMENT)

tf-validate: ## Check the Terraform files; needs tf-init, and no account
	@$(TERRAFORM) fmt -check -recursive && $(TERRAFORM) validate

tf-plan: var-file ## Show what would change in ENVIRONMENT, and save it as a plan
	@$(TERRAFORM) workspace select $(ENVIRONMENT) && mkdir -p $(dir $(PLAN))
	@umask 077 && $(TERRAFORM) plan -input=false -var-file=environments/$(ENVIRONMENT).tfvars -out=$(PLAN)

tf-apply: ## Apply exactly the plan that tf-plan saved, once
	@[ -f $(PLAN) ] || { echo "There is no plan for $(ENVIRONMENT): make tf-plan ENVIRONMENT=$(ENVIRONMENT)" >&2; exit 1; }
	@$(TERRAFORM) workspace select $(ENVIRONMENT)
	@$(TERRAFORM) apply -input=false $(PLAN) && rm $(PLAN)

tf-destroy: var-file ## Remove everything in ENVIRONMENT; needs CONFIRM=<the same name>
	@[ "$(CONFIRM)" = "$(ENVIRONMENT)" ] || { echo "This removes all of $(ENVIRONMENT): say CONFIRM=$(ENVIRONMENT)" >&2; exit 1; }
	@$(TERRAFORM) workspace select $(ENVIRONMENT)
	@$(TERRAFORM) destroy -input=false -auto-approve -var-file=environments/$(ENVIRONMENT).tfvars

var-file:
	@[ -f $(VAR_FILE) ] || { echo "$(VAR_FILE) is missing: copy production.tfvars.example and fill it in" >&2; exit 1; }

build:
	@{ command -v cargo && command -v cc; } >/dev/null || $(CLOUD) tools
	@cargo build --locked $(if $(filter release,$(PROFILE)),--release --workspace)

servers:
	@$(CLOUD) tools && $(CLOUD) up && $(DEPLOY) storage

loaded:
	@eval "$$($(CLOUD) env)" && fixtures load $$($(CLOUD) load) --seed 1 --count $(MESSAGES) --from $(FROM) --to $(TO) --if-empty
