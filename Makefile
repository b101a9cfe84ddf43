# `make bench` and `make test` do everything: find a Python, create .venv, install, run.  `make help` lists the rest.
SHELL = /bin/sh
PYTHON_VERSIONS = 3.10 3.11 3.12
VENV = .venv
VENV_TF218 = .venv-tf218
BENCH_ARGS =
TEST_ARGS =
# Processes that run tests: one more than two cores, as some tests wait. The tests of one file stay together.
TEST_JOBS = 3
TF218_ARGS =
CHAOS_ARGS =
MUTANTS_ARGS =

# The environment that is there already comes first, so that only PYTHON=... moves it to another version.
PYTHON_CANDIDATES = $(or $(PYTHON),$(VENV)/bin/python python3.11 python3.10 python3.12 python3)
# One stamp for each PYTHON=..., so that another choice is noticed.
INSTALLED = $(VENV)/.installed$(subst /,_,$(PYTHON))
INSTALLED_TF218 = $(VENV_TF218)/.installed
SOURCES = setup.cfg pyproject.toml bibench_tf/__init__.py requirements/install.sh $(wildcard requirements/*.lock)

# $(call find_python,VERSIONS,CANDIDATES): the interpreter, or the end of make with one line that says what is missing.
find_python = $(call python_or_end,$(shell sh requirements/find_python.sh "$(1)" $(2)))
python_or_end = $(if $(filter-out needs,$(firstword $(1))),$(1),$(error bibench $(1)))

.PHONY: help install bench test test-pairs test-cluster test-fast test-tf218 chaos mutants lint format clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
	@echo "  PYTHON=/path/to/python chooses the interpreter, BENCH_ARGS, TEST_ARGS and TF218_ARGS add arguments"

install: $(INSTALLED)  ## create .venv with the exact versions of requirements/ and .venv/bin/bibench

bench: install  ## install, then run the benchmark: bibench run
	$(VENV)/bin/bibench run $(BENCH_ARGS)

test: install  ## install, then run all tests but those of test-pairs and test-cluster
	$(VENV)/bin/pytest -n $(TEST_JOBS) --dist loadfile -m "not pairs and not cluster" $(TEST_ARGS)

test-pairs: install  ## the tests of the other pairs of network and algorithm
	$(VENV)/bin/pytest -n $(TEST_JOBS) --dist loadfile -m pairs $(TEST_ARGS)

test-cluster: install  ## the tests that kill processes and machines, one after the other
	$(VENV)/bin/pytest -m cluster $(TEST_ARGS)

test-fast: install  ## the tests that take less than about ten seconds each
	$(VENV)/bin/pytest -n $(TEST_JOBS) --dist loadfile -m "not slow and not pairs and not cluster" $(TEST_ARGS)

test-tf218: $(INSTALLED_TF218)  ## the tests that need no Addons, with TensorFlow 2.18 on Python 3.11
	$(VENV_TF218)/bin/pytest -m "not addons and not pairs and not cluster" $(TF218_ARGS)

chaos: install  ## 50 kills, a full disk, damaged checkpoints ... against a small benchmark; about five minutes
	$(VENV)/bin/python tests/chaos/campaign.py $(CHAOS_ARGS)

mutants: install  ## change the code on purpose and run the tests that should notice; about 20 minutes
	$(VENV)/bin/python tests/mutants/campaign.py $(MUTANTS_ARGS)

lint: install  ## ruff: rules and formatting; mypy: types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@sh requirements/tree.sh build/tree
	cd build/tree && $(CURDIR)/$(VENV)/bin/mypy --config-file $(CURDIR)/pyproject.toml -p bibench_tf

format: install  ## ruff: mend what can be mended, and format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## remove the environments, build products and caches (results stay)
	rm -rf $(VENV) $(VENV_TF218) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): $(SOURCES)
	@sh requirements/install.sh $(call find_python,$(PYTHON_VERSIONS),$(PYTHON_CANDIDATES)) $(VENV)
	@touch $@

# The lock goes in first and setup.cfg's own requirements are left out, because those say TensorFlow 2.15 on Python 3.11.
$(INSTALLED_TF218): $(SOURCES)
	@sh requirements/install.sh $(call find_python,3.11,$(or $(PYTHON),$(VENV_TF218)/bin/python python3.11 python3)) $(VENV_TF218) tf218
	@touch $@
