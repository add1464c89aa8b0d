# `make demo` and `make test` install everything they need into .venv the first time, and again when the requirements change.
#
#   PYTHON        the interpreter that .venv is made from: 3.11 or newer
#   ARGS          more arguments for the command behind `demo`, `test`, `test-readers`, `fuzz` and `train`
#   RUN           the run folder of `tiny`
#   PROCESSES     how many train side by side in `tiny`: processor cores, or GPUs

PYTHON ?= python3
ARGS ?=
RUN ?= runs/tiny
PROCESSES ?= 2

BIN := .venv/bin
INSTALLED := .venv/.installed
TRAIN := $(BIN)/mrt train
TRAIN_SIDE_BY_SIDE := $(BIN)/torchrun --nproc-per-node $(PROCESSES) -m -- mrt_core train
SHARES := --shares .45 .27 .16 .12
# but the ablations, which take hours and a run folder
BENCHMARKS := $(filter-out benchmarks/ablations.py,$(sort $(wildcard benchmarks/*.py)))

.DEFAULT_GOAL := help
.PHONY: help install demo test test-readers fuzz lint format train tiny benchmark clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-22s%s\n", $$1, $$2}'

install: $(INSTALLED) ## make .venv with everything for use and development

$(INSTALLED): pyproject.toml requirements.txt
	@echo "Installing into .venv; the first time this takes a few minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## run the four modes on bundled inputs; results in out/demo
	$(BIN)/mrt demo $(ARGS)

test: $(INSTALLED) ## run the tests
	$(BIN)/python -m pytest -q tests --ignore=tests/readers $(ARGS)

test-readers: $(INSTALLED) ## open the written documents in other programs; installs what it needs
	$(BIN)/python -m pytest -q tests/readers $(ARGS)

fuzz: $(INSTALLED) ## give the document readers 20,000 damaged files; fewer with ARGS="--count 1000"
	$(BIN)/python tests/documents/fuzz.py $(ARGS)

lint: $(INSTALLED) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED) ## format the code and mend what can be mended by a machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train: $(INSTALLED) ## train a model, e.g. make train ARGS="--help"
	$(BIN)/mrt train $(ARGS)

tiny: $(INSTALLED) ## train the bundled checkpoint and its student from nothing; many hours on a CPU, goes on where it was
	$(TRAIN) autoencoder --run $(RUN)
	$(TRAIN) samples --run $(RUN)
	$(TRAIN_SIDE_BY_SIDE) teacher --run $(RUN) --batch 16 --decay-share 0.4 $(SHARES)
	$(TRAIN) bundle --run $(RUN) --sampling-steps 8 --image-steps 4 --cfg 2.5 --shift 3 -o $(RUN)/mrt-tiny.safetensors
	$(TRAIN_SIDE_BY_SIDE) student --run $(RUN) --cfg 2.5 $(SHARES)
	$(TRAIN) bundle-student --run $(RUN) -o $(RUN)/mrt-tiny-student.safetensors

benchmark: $(INSTALLED) ## run every benchmark, one after the other
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script; done

clean: ## remove caches and build files; .venv, out/ and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
