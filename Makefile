# make help lists the targets. Each sets up what it needs: a fresh clone wants only Python and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CH ?=
FLAGS ?=
ARGS ?=
export MPLCONFIGDIR ?= $(CURDIR)/.venv/matplotlib

.PHONY: help lab test bench fuzz lab-test export readme clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 16

$(READY): settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

lab: $(READY)  ## open the course in JupyterLab; ARGS="--no-browser --port 8899" passes options on
	JUPYTER_CONFIG_PATH="$(CURDIR)/.ci/jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" $(BIN)/jupyter-lab --ServerApp.root_dir=nbs --LabApp.default_url=/lab/tree/index.ipynb $(ARGS)

test: $(READY)  ## export, check and run every chapter; CH=33 runs one; FLAGS=realdata those with real data
	$(BIN)/python .ci/course.py test --chapter "$(CH)" --flags "$(FLAGS)"

bench: $(READY)  ## run the benchmarks of all chapters, one after the other, and save their tables
	$(BIN)/python .ci/course.py bench --chapter "$(CH)"

fuzz: $(READY)  ## run the folded tests of all chapters, or of CH=11, under ROUNDS=20 fresh seeds; FIRST=SEED repeats a run
	$(BIN)/python .ci/course.py fuzz --chapter "$(CH)" --rounds $(or $(ROUNDS),20) $(if $(FIRST),--first $(FIRST))

lab-test: $(READY)  ## read the course in a headless browser: run all cells of every chapter, or of CH="index 11"
	$(BIN)/python tests/lab.py $(CH)

export: $(READY)  ## write dlvision/ and README.md from the notebooks, and clean these
	$(BIN)/python .ci/course.py export

clean:  ## remove the environment, caches and build leftovers
	rm -rf .venv build dist dlvision.egg-info tests/screenshots
	find . -name __pycache__ -prune -exec rm -rf {} +
