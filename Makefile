# Every target sets up .venv by itself. PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/*/pyproject.toml)
# Test processes side by side, a thread of torch each; a file's tests stay in one of them.
WORKERS ?= 2
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: demo test test-fast test-pythons test-oldest lint bench docs dist check-dist setup clean

demo: setup  ## train a ternary SAE on real hidden states and print what it cost
	$(BIN)/qsae train --sae ternary --quantizer ste --overwrite

test: setup lint  ## lint, types, and every test
	$(TEST)

test-fast: setup  ## the tests that take seconds
	$(TEST) -m "not slow"

test-pythons: setup  ## every other Python from 3.10 to 3.13 that the machine has; lint has types of the oldest
	$(BIN)/python .ci/typecheck --python-version 3.13
	$(BIN)/python .ci/pythons

test-oldest: setup  ## this Python, with the oldest dependencies that the pyproject files admit
	$(BIN)/python .ci/pythons --oldest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python .ci/typecheck

bench: setup  ## measure qsae beside its peers, each from PyPI in a venv of its own; writes docs/performance.md
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement benchmarks/requirements.txt
	$(BIN)/python -m benchmarks

docs: .venvs/docs/.ready  ## the site, into build/site; a link or a page that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 .venvs/docs/bin/mkdocs build --strict

dist: .venvs/dist/.ready  ## a wheel and an sdist of every distribution, into dist/
	.venvs/dist/bin/python .ci/dist

check-dist: dist  ## what is in them; fresh environments of every Python here with nothing of the checkout
	.venvs/dist/bin/python .ci/check-dist

# environments of their own, without torch, of a group of pyproject.toml each: the build backends of all
# distributions, so that none is built in another environment; what makes the site
.venvs/%/.ready: pyproject.toml
	$(PYTHON) -m venv --clear .venvs/$*
	.venvs/$*/bin/python -m pip install --quiet --upgrade pip
	.venvs/$*/bin/python -m pip install --quiet --group $*
	touch $@

setup: $(VENV)/.ready

# The build backends first, and torch of the version in constraints.txt; then core and all plugins in one run without
# build isolation, ten times faster with dozens of them. PyPI's torch for Linux brings gigabytes of CUDA along; with
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu pip takes the build for CPUs of the same version
$(VENV)/.ready: pyproject.toml constraints.txt plugins/requirements-dev.txt $(PLUGINS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch \
		"setuptools>=77.0.3" "flit_core>=3.11,<4"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation \
		--requirement plugins/requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) .venvs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
