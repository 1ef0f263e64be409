# Every command of the project. What `setup` makes lives in .venv (and .uv where the machine has no uv).
PYTHON ?= python3
UV ?= $(or $(shell command -v uv),.uv/bin/uv)
BIN := .venv/bin
# Pyright needs node: Playwright has one already.
NODE = $(wildcard $(CURDIR)/.venv/lib/python3*/site-packages/playwright/driver)
# Some days back, so that a poisoned release is found out before it is locked.
COMPILE := pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--exclude-newer "3 days" --custom-compile-command "make lock" --quiet

.DEFAULT_GOAL := help
.PHONY: help python setup demo test chaos bench bench-short profile check docs fmt lock collector containers

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

setup: .venv/.locked ## make .venv from the lock (the other targets do so by themselves)

demo: setup $(if $(COLLECTOR),collector) ## start viewer, service and chat, and send one turn (DEMO_ONCE=1: then stop; COLLECTOR=1: through it)
	@$(BIN)/python -m app.demo

test: setup ## run the tests, as many at once as there are cores
	$(BIN)/python -m pytest -n auto --dist loadfile

chaos: setup ## break backends, disks and processes at full length, and count what is lost (some 15 minutes)
	$(BIN)/python -m pytest -m chaos

bench: setup | $(UV) ## measure what tracing costs, beside others, and write docs/performance.md (half an hour; BENCH="--rounds 1")
	@UV=$(UV) $(BIN)/python -m bench $(BENCH)

bench-short: setup | $(UV) ## the same of a few cells, beside OpenInference only; writes nothing
	@UV=$(UV) $(BIN)/python -m bench --short $(BENCH)

profile: setup ## where a turn's time goes (VARIANT=default CELL="mode=stream history=40")
	@$(BIN)/python -m bench.profile $(or $(VARIANT),recorder) $(or $(CELL),mode=stream history=40 seconds=2)

docs: setup ## write the pages that are made from the source
	@PYTHONPATH=. $(BIN)/python docs/settings.py

check: setup ## format, lint, types, dependencies, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PATH="$(NODE):$$PATH" $(BIN)/pyright
	$(BIN)/deptry .
	$(BIN)/codespell

fmt: setup ## format, and repair what ruff can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: | $(UV) ## recompile locks/*.txt from pyproject.toml (LOCK=--upgrade takes newer releases)
	$(UV) $(COMPILE) $(LOCK) --extra api --extra ui --extra viewer --group dev -o locks/dev.txt
	for extra in api ui viewer; do \
		$(UV) $(COMPILE) --constraint locks/dev.txt --extra $$extra -o locks/$$extra.txt || exit 1; \
	done
	echo uv | $(UV) $(subst pyproject.toml,-,$(COMPILE)) $(LOCK) --no-annotate -o locks/uv.txt

collector: otel-collector/dist/otelcol ## build the collector (Go is needed; some minutes the first time, then cached)

otel-collector/dist/otelcol: otel-collector/manifest.yaml otel-collector/probe/main.go otel-collector/build
	@otel-collector/build
	@touch $@

containers: setup collector ## build the images and run the compose stack for real, on a daemon of its own
	@CONTAINERS=1 $(BIN)/python -m pytest tests/containers

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: install it and say PYTHON=/path/to/python3 make …"; exit 1; }

.venv/.locked: locks/dev.txt | python $(UV)
	@test -x $(BIN)/python || $(UV) venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv
	@$(UV) pip sync --quiet --python $(BIN)/python locks/dev.txt
	@touch $@

.uv/bin/uv: locks/uv.txt
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "Python cannot make virtual environments here: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv .uv
	@.uv/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r locks/uv.txt
	@touch $@
