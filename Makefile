# Everything is installed into .venv, once; `make help` says what there is.
VENV := .venv
BIN := $(VENV)/bin
SERVICES := sdk/haive/core/persistence/local
DENO := env DENO_DIR=$(CURDIR)/$(VENV)/deno/cache DENO_TLS_CA_STORE=system,mozilla NO_COLOR=1 \
	$(CURDIR)/$(BIN)/deno
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-annotate
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check

# Where it is set, each of the hundreds of programs that tests start would compile all anew.
test: export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench stack dump lock

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/run.stamp $(VENV)/dev.stamp ## install everything into .venv

demo: $(VENV)/run.stamp ## run the example on a local stack; INPUT=file is passed on
	$(BIN)/python examples/01_conversations.py $(INPUT)

stack: $(VENV)/run.stamp ## start the local stack in the background
	$(BIN)/haive local start

test: lint ## lint, then all tests: those that bound a time by themselves
	$(BIN)/pytest --numprocesses logical --dist loadfile -m "not timed"
	$(BIN)/pytest -m timed

bench: $(VENV)/dev.stamp ## measure writing and reading messages, beside its peers
	$(BIN)/haive bench messages

lint: $(VENV)/dev.stamp $(VENV)/deno.stamp ## style, types and safety of Python, SQL and TypeScript
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/api.py
	$(BIN)/bandit --quiet --recursive sdk
	$(BIN)/squawk --config .squawk.toml supabase/migrations/*.sql
	@rm -rf $(VENV)/deno/services && cp -R $(SERVICES)/services $(VENV)/deno/
	cd $(VENV)/deno && $(DENO) fmt --quiet --check services
	cd $(VENV)/deno && $(DENO) lint --quiet services
	cd $(VENV)/deno && $(DENO) check --quiet services
	cd $(VENV)/deno && $(DENO) fmt --quiet --check $(CURDIR)/tests/javascript
	cd $(VENV)/deno && $(DENO) lint --quiet $(CURDIR)/tests/javascript

dump: $(VENV)/dev.stamp ## renew tests/migration/schema.sql from the migrations
	HAIVE_RENEW_DUMP=1 $(BIN)/pytest -q tests/migration/test_catalogue.py

lock: $(VENV)/bin/python ## renew requirements/*.lock from pyproject.toml
	$(INSTALL) uv
	$(COMPILE) pyproject.toml --extra local --extra bench --extra embeddings --extra pinecone --extra qdrant --extra weaviate \
		--group dev -o requirements/dev.lock
	$(COMPILE) pyproject.toml --extra local --group build \
		--constraint requirements/dev.lock -o requirements/run.lock

# Where the Python of .venv is gone (upgraded, moved, another user's), all of it is made again.
$(shell test -x $(BIN)/python || rm -f $(VENV)/*.stamp)

# The first Python that runs and is new enough: a name on the PATH may be a stub that does not.
$(BIN)/python:
	@for python in python3.13 python3.12 python3.11 python3; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			$$python -m venv --clear $(VENV) && exit 0; \
			echo "$$python cannot make $(VENV): is its package for venv installed" \
				"(Debian: apt install python3-venv), and this directory yours?" >&2; \
			exit 1; \
		fi; \
	done; \
	echo "haive-persistence needs Python 3.11 or newer, and none of python3.13, python3.12," \
		"python3.11 and python3 on the PATH is one." >&2; \
	exit 1

$(VENV)/run.stamp $(VENV)/dev.stamp: $(VENV)/%.stamp: requirements/%.lock pyproject.toml | $(BIN)/python
	$(INSTALL) --require-hashes -r $<
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/deno.stamp: $(SERVICES)/deno.json $(SERVICES)/deno.lock | $(VENV)/dev.stamp
	@mkdir -p $(VENV)/deno && cp $^ $(VENV)/deno/
	cd $(VENV)/deno && $(DENO) install --quiet --frozen
	@touch $@
