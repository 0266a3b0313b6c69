# Everything a newcomer needs: `make demo` and `make test`. Both install first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help install demo demo-services up test lint format lock clean

help:
	@echo "make demo    install, ingest this project's docs, ask three questions over HTTP"
	@echo "make demo-services  the same on Weaviate, Redis, PostgreSQL and S3, as far as this machine has them"
	@echo "make up      start the Dagster UI on http://127.0.0.1:3000 and the query API on http://127.0.0.1:8000"
	@echo "make test    run every test"
	@echo "make lint    ruff, mypy and the import contracts"
	@echo "make install only install into $(VENV)"

install: $(STAMP)

# constraints.txt is the whole closure, so nothing is left to resolve. uv is fast; where it cannot reach
# the package index that pip is configured for, pip does the same. Byte-code is compiled once, here:
# every run of `rag` and every Dagster run is a new process.
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 14) else "rag-platform needs Python 3.11 to 3.13: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' constraints.txt)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -r constraints.txt \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@echo "compiling byte-code …"
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib rag_platform >/dev/null 2>&1 || true
	@touch $@

demo: install
	$(BIN)/rag demo

demo-services: install
	$(BIN)/python deploy/demo_services.py

up: install
	$(BIN)/rag up

# A real Weaviate server is built first where Go is; without it its tests are skipped and say so.
test: install
	@$(BIN)/python -m rag_platform_tests.backends.weaviate_server || true
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Resolve the dependencies of pyproject.toml anew; commit the result.
lock: install
	$(BIN)/uv pip compile --quiet --python-version 3.11 --all-extras --no-annotate --no-header \
	  --output-file constraints.txt pyproject.toml

clean:
	rm -rf $(VENV) .rag build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
