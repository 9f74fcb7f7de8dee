# Each target sets itself up: nothing but Python (3.11 or newer, with venv), git and make has to be there before.
#
#   make demo     an example site on real sockets, until Ctrl-C (options: make demo ARGS="--seconds 30")
#   make test     every check and every test (options for pytest: make test ARGS="-k lease -x")
#   make check    linter, formatter, types, import contracts
#   make lock     choose the newest dependencies that pyproject.toml allows, and pin them in requirements/
#   make clean    remove .venv, caches and built files
#
# Another interpreter: make test PYTHON=python3.13

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

.PHONY: demo test check lock clean python runtime dev programs

demo: runtime
	@$(BIN)/laadplein demo $(ARGS)

test: check programs
	@$(BIN)/python -m pytest $(ARGS)

check: dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/mypy requirements/*.py
	@$(BIN)/lint-imports

lock: python
	@$(PYTHON) requirements/lock.py $(ARGS)

clean:
	rm -rf .venv build dist htmlcov .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

runtime dev: python
	@$(PYTHON) requirements/install.py $@

programs: python
	@$(PYTHON) requirements/programs.py

python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "laadplein needs Python 3.11 or newer, and there is no '$(PYTHON)'." >&2; \
	  echo "On Debian or Ubuntu: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "laadplein needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name a newer one: make $(firstword $(MAKECMDGOALS) demo) PYTHON=python3.13" >&2; exit 1; }
