# Every target that people, hooks and CI call; `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
RUNS ?= runs
export HF_HUB_DISABLE_TELEMETRY := 1

DEMO := --target smollm2_135m_instruct --safeguard refusal_sft --attack control --attack lora_sft_withheld \
	--budget laptop --eval harmbench_64 --eval over_refusal_32 --eval benign_answers_64
SMOKE := --target tiny --safeguard none --attack control_smoke --attack lora_sft_smoke \
	--budget smoke --eval smoke_refusal --eval smoke_benign

SWEPT := smollm2_135m_instruct harmbench_32_48
SWEEPS := refusal_sft deep_refusal_sft tamper_resistant
STORED = $(sort $(wildcard docs/results/*.json docs/results/*.json.gz))

.DEFAULT_GOAL := help
.PHONY: help setup fetch check test faults smoke demo sweep fuzz results run report clean

help: ## say what there is
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## make .venv from pyproject.toml and constraints.txt, and fetch what tests read
	$(BIN)/robustlab fetch --all

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, got {v[0]}.{v[1]}; run make PYTHON=python3.11")'
	@echo "setting up .venv: about 3 minutes the first time"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

check: $(READY) ## ruff, mypy --strict, import-linter, pydoclint, and every YAML file
	$(BIN)/ruff check robustlab tests
	$(BIN)/ruff format --check robustlab tests
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pydoclint --quiet robustlab
	$(BIN)/robustlab check targets safeguards attacks budgets evals docs/policies docs/plans docs/targets docs/evals

test: $(READY) ## all tests; those that need SmolLM2 run where it has been fetched
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

faults: $(READY) ## kill runs at every failpoint and at 100 random times, go on, compare: 20 minutes on a quiet core
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.campaign --random 100 --out docs/reliability.json --page docs/reliability.md

smoke: $(READY) ## the whole pipeline on the tiny target, under a minute, no download
	CUDA_VISIBLE_DEVICES= $(BIN)/robustlab run $(SMOKE) --runs $(RUNS)

demo: $(READY) ## tamper with SmolLM2-135M under a real budget: 25 minutes the first time, 12 after that
	$(BIN)/robustlab fetch smollm2_135m_instruct refusal_sft harmbench_64 over_refusal_32
	CUDA_VISIBLE_DEVICES= $(BIN)/robustlab run $(DEMO) --runs $(RUNS)

# In the background: `nohup make sweep > sweep.log 2>&1 &`. Run again after a crash or Ctrl-C, it skips what is done.
# A run with an incomplete cell ends with 5, and the next safeguard goes on.
sweep: $(READY) ## eight attacks on three safeguards of SmolLM2-135M: hours; run again, it goes on
	$(BIN)/robustlab fetch $(SWEPT) $(SWEEPS)
	for safeguard in $(SWEEPS); do \
		CUDA_VISIBLE_DEVICES= $(BIN)/robustlab run docs/results/$$safeguard.yaml --as sweep-$$safeguard --runs $(RUNS) || { code=$$?; test $$code -eq 5 || exit $$code; }; \
	done

fuzz: $(READY) ## 100,000 mutated inputs for the readers of YAML, ledgers, rows and results: 5 minutes
	$(BIN)/python -m tests.hostile.fuzz --inputs 100000

# `gzip -9nc runs/sweep-X/results.json > docs/results/X.json.gz` stores a run. An incomplete cell ends `report` with 5.
results: $(READY) ## docs/results.md anew from the stored results of docs/results
	$(BIN)/robustlab report $(STORED) --format markdown > docs/results.md.part || test $$? -eq 5
	{ cat docs/results/intro.md && echo && cat docs/results.md.part; } > docs/results.md
	rm docs/results.md.part

run: $(READY) ## make run TARGET= SAFEGUARD= ATTACK= BUDGET= EVAL= SEEDS=; lists are separated by blanks
	$(BIN)/robustlab run $(foreach t,$(TARGET),--target $(t)) $(foreach s,$(SAFEGUARD),--safeguard $(s)) \
		$(foreach a,$(ATTACK),--attack $(a)) $(foreach b,$(BUDGET),--budget $(b)) \
		$(foreach e,$(EVAL),--eval $(e)) --seeds $(or $(SEEDS),1) --runs $(RUNS)

report: $(READY) ## make report RUN=id: print a run's table again and write its report anew
	$(BIN)/robustlab report $(RUN) --runs $(RUNS)

clean: ## remove .venv and caches of tools; runs and fetched artefacts stay
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
