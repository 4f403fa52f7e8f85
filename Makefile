# `make serve` and `make test` do everything on a machine with Python 3.11 or newer, make and a package index.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 3000
SCENARIO ?= steady
BIN := .venv/bin
export BENTOML_DO_NOT_TRACK := True

DATASETS := build/datasets/.written

.PHONY: help setup serve train test test-long survey check bento image push bench bench-start history load lock

help:  ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*##\(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: .venv/.installed  ## Install everything, locked, into .venv (idempotent)

serve: setup  ## Serve on HOST:PORT; trains on the built-in data when there is no model, records into build/history.db
	@HOST='$(HOST)' PORT='$(PORT)' $(BIN)/python -m defects.serving.listener
	@[ -n "$${MODEL_DIR:-}$${DEFECTS_MODEL:-}" ] || $(MAKE) --no-print-directory model
	@[ -n "$${DEFECTS_DATABASE_URL_FILE:-}" ] || { mkdir -p build; \
	    export DEFECTS_DATABASE_URL="$${DEFECTS_DATABASE_URL-sqlite:///build/history.db}"; }; \
	exec $(BIN)/bentoml serve service:DefectClassifier --host $(HOST) --port $(PORT)

train: setup  ## Train a model; ARGS="--data parcels.csv --label defect" for your own data
	@$(BIN)/python train.py $(ARGS)

test: setup .venv-clients/.installed  ## Run every test; ARGS="-k batch" for some, ARGS="-n 0 -s" for one at a time with its output
	@$(BIN)/python -u -m pytest -n auto --dist loadgroup $(ARGS)

test-long: setup  ## Compare served answers with scikit-learn's for thousands of random models, and ask through a proxy in Go, in half an hour
	@$(BIN)/python -u -m pytest --hypothesis-profile=thousands -s tests/limits/long_go_proxy.py tests/history/long_history_page.py tests/history/long_kills.py tests/history/long_sqlite_kills.py tests/training/test_right_answers.py tests/training/test_brought.py $(ARGS)

survey: setup $(DATASETS)  ## Train, serve and compare with scikit-learn on public data sets; ARGS="-k penguins" for one
	@$(BIN)/python -u -m pytest -q -s tests/datasets/long_public_datasets.py $(ARGS)

check: lint types manifests  ## Lint, check types and manifests

bento: setup model  ## Build a Bento with the champion or the newest model of this checkout
	@tag="$$($(BIN)/python -m defects.image.choice)"; \
	$${tag:+env -u DEFECTS_MODEL_FILE DEFECTS_MODEL=$$tag} $(BIN)/bentoml build

image: setup  ## Build the Bento and the image; BASE_IMAGE= PLATFORM= ENGINE= MODEL=none ARGS=; LOAD=1: the load tests' image
	@[[ "$(MODEL)" =~ ^(none)?$$ ]] || { echo "MODEL: is $(MODEL); expected none; DEFECTS_MODEL names one" >&2; exit 2; }
	@[ -n "$(LOAD)" ] || [ "$(MODEL)" = none ] || $(MAKE) --no-print-directory model
	@$(BIN)/python -m $(if $(LOAD),loadtests.cluster.image,defects.image build) \
	    $(if $(BASE_IMAGE),--base $(BASE_IMAGE)) $(if $(PLATFORM),--platform $(PLATFORM)) \
	    $(if $(ENGINE),--engine $(ENGINE)) $(if $(LOAD),,$(if $(filter none,$(MODEL)),--without-model)) $(ARGS)

push: setup  ## Push the image built last to IMAGE, a registry's repository; LOAD=1: the load tests' image
	@$(BIN)/python -m defects.image $(if $(LOAD),--output build/load-image) push $(if $(IMAGE),$(IMAGE),"") $(ARGS)

bench: setup  ## Measure speed beside other servers, into build/bench; ARGS=--quick for under two minutes
	@$(BIN)/python -m benchmarks $(ARGS)

bench-start: setup  ## Measure how long servers take to start, and their memory
	@$(BIN)/python -m benchmarks.startup $(ARGS)

history: setup  ## Start a PostgreSQL in the background, for predictions and outcomes, and print its URL; ARGS=--stop stops it
	@$(BIN)/python -m tools.local_postgres $(ARGS)

load: setup  ## Drive the server at HOST, a URL or an address (its port: PORT), through SCENARIO; CLUSTER=namespace/name to watch one; ARGS="--rate 200" for more
	@case "$(HOST)" in \
	    *://*) url="$(HOST)" ;; \
	    *]:*) url="http://$(HOST)" ;; \
	    *]) url="http://$(HOST):$(PORT)" ;; \
	    *:*:*) url="http://[$(HOST)]:$(PORT)" ;; \
	    *:*) url="http://$(HOST)" ;; \
	    *) url="http://$(HOST):$(PORT)" ;; \
	esac; \
	$(BIN)/locust -f loadtests/locustfile.py --headless --only-summary --scenario $(SCENARIO) \
	    $(if $(CLUSTER),--cluster $(CLUSTER)) $(ARGS) --host "$$url"

lock:  ## Resolve the dependencies anew
	@compile() { $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-package warehouse-defects --custom-compile-command "make lock" $(ARGS) \
	    --extra "$$1" --output-file "requirements/$$1.txt" pyproject.toml "$${@:2}"; }; \
	compile dev; compile serve --extra history --extra storage --constraint requirements/dev.txt; compile clients; \
	compile serve-sklearn --constraint requirements/dev.txt; compile load --constraint requirements/dev.txt; \
	compile datasets --constraint requirements/dev.txt

.PHONY: model lint types manifests
model: setup
	@$(BIN)/python train.py --if-missing

lint: setup
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: setup
	@$(BIN)/mypy

manifests: setup .venv-clients/.installed
	@$(BIN)/python -m pytest -q -n auto --dist loadgroup tests/kserve

.venv/.installed: requirements/dev.txt
.venv-clients/.installed: requirements/clients.txt
.venv-datasets/.installed: requirements/datasets.txt
# The locks have every dependency, so none is looked for. Byte code is written when a module is first imported, where that
# is allowed: most modules never are, and to compile them all takes as long as everything else here.
.venv/.installed .venv-clients/.installed .venv-datasets/.installed:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; set PYTHON=")'
	@echo "installing $< into $(@D); this takes about a minute"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
	    $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile) --requirement $<
	@touch $@

$(DATASETS): .venv-datasets/.installed tests/datasets/catalogue.py tests/datasets/write_tables.py
	@.venv-datasets/bin/python tests/datasets/write_tables.py $(@D)
	@touch $@
