# Each target does its own set-up: the first one makes .venv, and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help run test test-fast soak lint bench ui deploy worker

help:                    ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: $(INSTALLED)        ## run the pipeline; ARGS="--epochs 3" passes arguments on
	@$(BIN)/python flows/cifar_flow.py --offline-fallback synthetic $(ARGS)

test: lint               ## run all checks and the whole test suite; ARGS="-k store" passes arguments on
	$(BIN)/python -m pytest --durations 20 $(ARGS)

test-fast: $(INSTALLED)  ## run the unit tests alone
	$(BIN)/python -m pytest tests/unit $(ARGS)

soak: $(INSTALLED)       ## run the long form of the store's tests, in a folder and in a bucket; half an hour
	CIFAR_FLOW_SOAK=1 $(BIN)/python -m pytest $$(grep -rl 'SOAK' tests --include='test_*.py') $(ARGS)

lint: $(INSTALLED)       ## check style, types and the import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)      ## measure side by side, 15 minutes; ARGS="--source PATH --pairs 3 --only NAME"
	$(BIN)/python benchmarks/run.py $(ARGS)

ui: $(INSTALLED)         ## start a lasting Prefect server with its UI
	$(BIN)/prefect server start

deploy: $(INSTALLED)     ## register the deployments of prefect.yaml, and their work pool if there is none
	@$(BIN)/prefect work-pool inspect cifar >/dev/null 2>&1 || $(BIN)/prefect --no-prompt work-pool create cifar --type process
	$(BIN)/prefect --no-prompt deploy --all </dev/null

worker: $(INSTALLED)     ## start a worker for the runs of deployments
	$(BIN)/prefect worker start --pool cifar

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"cifar-flow: expected Python 3.11 or later, got {v.major}.{v.minor}; give one by PYTHON=")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "installing into .venv (6 GB with PyTorch's CUDA libraries; a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
