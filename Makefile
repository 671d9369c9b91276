# make demo: see it work. make test: everything that must hold. make torture: the same, tried for an hour, and what is
# rare. make bench: how fast it is. make docs, make lock: write anew what is generated. make pipeline NAME=skills: the first
# version of a new pipeline's files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The locks are complete, build tools included. pip must not look past them: it would find newer releases without hashes.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-build-isolation

.PHONY: demo test torture lint docs pipeline bench lock clean

demo: $(VENV)/.installed
	@sh bench/demo.sh $(BIN)/deskroll

test: lint
	$(BIN)/pytest -n auto --cov --cov-report=term $(PYTEST)

TORTURED := kills machine hostile spool neighbours operations parity spark

torture: $(VENV)/.developed
	$(INSTALL) -r requirements-torture.lock
	rm -rf bench/out/torture && mkdir -p bench/out/torture
	$(BIN)/pytest -n auto --torture bench/out/torture $(TORTURED:%=tests/promises/test_%.py)
	$(BIN)/python torture/fuzz.py --seconds $(or $(FUZZ),300) > bench/out/torture/fuzz.log 2>&1 || { tail bench/out/torture/fuzz.log; exit 1; }
	$(BIN)/python torture/reliability.py bench/out/torture

lint: $(VENV)/.developed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint --disable-progress-bar src/deskroll/postgres

docs: $(VENV)/.developed
	$(BIN)/pytest -q tests/commands/test_docs.py tests/commands/test_columns.py --update-docs

pipeline: $(VENV)/.developed
	@$(BIN)/python tools/new_pipeline.py $(NAME)

bench: $(VENV)/.developed
	$(BIN)/python bench/bench.py --markdown bench/out/table.md $(BENCH)
	$(BIN)/python bench/hierarchy.py

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "deskroll needs Python 3.11 or newer; set PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV) || { echo "Python has no venv module here; on Debian: apt install python3-venv"; exit 1; }
	$(INSTALL) -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/pip check --disable-pip-version-check
	@touch $@

$(VENV)/.developed: $(VENV)/.installed requirements-dev.lock
	$(INSTALL) -r requirements-dev.lock
	$(BIN)/pip check --disable-pip-version-check
	@touch $@

# Versions and hashes for every platform, and no registry's address. Needs uv; make lock UPGRADE=--upgrade renews all.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $(UPGRADE) \
		--group build pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--constraint requirements.lock --group build --group dev --extra spark pyproject.toml -o requirements-dev.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--group torture -o requirements-torture.lock

clean:
	rm -rf $(VENV) .deskroll bench/out
