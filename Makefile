# `make demo` and `make test` set up everything they need in .venv; nothing else is installed by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
MINUTES ?= 10
CONSTRAINTS ?= constraints.txt

.PHONY: demo test docs figures check bench fuzz gpu format lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# uv installs from the same index as pip, about ten times faster. What it installs is in
# constraints.txt; CONSTRAINTS=/dev/null installs the newest that pyproject.toml allows.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 15) else "expected Python 3.11 to 3.14, got " + sys.version.split()[0] + "; set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
		--constraint $(CONSTRAINTS) -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed  ## search on the digits, replay, compare, report
	$(BIN)/automix search configs/search/digits.yaml --output $(RUN)/search
	$(BIN)/automix replay $(RUN)/search/schedule.json configs/replay/digits.yaml --output $(RUN)/replay
	$(BIN)/automix compare configs/compare/digits.yaml --output $(RUN)/compare --split test \
		--num-seeds 24 --schedules finalists:$(RUN)/search
	$(BIN)/automix report $(RUN)

test: $(VENV)/.installed check  ## lint, types, layers, tests
	$(BIN)/python -m pytest -n auto

# The builder advertises its own successor, which says nothing about the pages. With --quiet, it
# does not count its warnings, and --strict lets all of them pass.
docs: $(VENV)/.installed  ## the site of the documents in site/; a warning is an error
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(CONSTRAINTS) -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

figures: $(VENV)/.installed  ## the picture and the table of the README
	$(BIN)/automix schedule show docs/schedules/digits.json --plot docs/schedule.png
	$(BIN)/automix compare configs/compare/digits.yaml --num-seeds 100 --split both \
		--output runs/figures --schedules docs/schedules/digits.json random none \
		shuffled:docs/schedules/digits.json docs/schedules/digits-greedy.json \
		docs/schedules/digits-second.json docs/schedules/digits-random-search.json \
		docs/schedules/digits-ridge-fit.json \
		constant:saliency_grafting:0.5 constant:cutmix:0.2 constant:mixup:0.2
	$(BIN)/automix report runs/figures

check: $(VENV)/.installed  ## ruff, mypy --strict, import contracts, words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers auto || $(BIN)/mypy  # on a busy machine its workers may not start
	$(BIN)/lint-imports
	$(BIN)/python -m tests.word_rules

format: $(VENV)/.installed  ## reformat in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed  ## benchmarks as ratios measured in one run
	$(BIN)/python -m benchmarks.operators

# `make fuzz MINUTES=60 READERS="schedule weights"`; with the extra `fuzz` it follows coverage.
fuzz: $(VENV)/.installed  ## readers of files with hostile ones, 10 minutes each
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(READERS)

# `make gpu GPU="--again"`, or GPU="--device cpu --quick" without an accelerator.
gpu: $(VENV)/.installed  ## tests, benchmarks and a search on a GPU, 9 minutes; again: what is missing
	@$(BIN)/python -m benchmarks.gpu $(GPU)

lock: $(VENV)/.installed  ## the newest releases that pyproject.toml allows, into constraints.txt
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra docs --universal --python-version 3.11 --upgrade \
		--no-header --no-annotate --quiet --output-file constraints.txt

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
