# All commands of the project. `setup` creates .venv (and .uv if uv is not installed).
PYTHON ?= python3
UV ?= $(or $(shell command -v uv),.uv/bin/uv)
BIN := .venv/bin
# Pyright needs node: Playwright contains one.
NODE = $(wildcard $(CURDIR)/.venv/lib/python3*/site-packages/playwright/driver)
# Skip releases of the last days, so that a malicious one is discovered before it is locked.
COMPILE := pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--exclude-newer "3 days" --custom-compile-command "make lock" --quiet

SERVICE := --extra langfuse --extra prometheus --extra viewer --group api

.DEFAULT_GOAL := help
.PHONY: help python setup demo test slow browser coverage chaos matrix dist sbom site bench bench-short profile check docs fmt lock collector containers gitleaks

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

setup: .venv/.locked ## create .venv from the lock (other targets do so when needed)

demo: setup $(if $(COLLECTOR),collector) ## start viewer, service and chat, and send one turn (DEMO_ONCE=1: stop then; COLLECTOR=1, PROMETHEUS=1: use these)
	@$(BIN)/python -m app.demo

test: setup ## run the tests, but for slow ones and those in a browser, two processes per core (TESTS=tests/app)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(TESTS)

browser: setup ## test the pages in a real Chromium (TESTS=tests/ui)
	$(BIN)/python -m pytest -n auto --dist loadfile -m 'browser and not chaos' $(TESTS)

slow: setup ## run the tests that take longest (TESTS=tests/app)
	$(BIN)/python -m pytest -n auto --dist loadfile -m 'slow and not browser and not chaos and not backends and not matrix' $(TESTS)

coverage: setup ## run the tests, and list the branches of telemetry and app that none of them takes
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --cov -m 'not browser and not chaos and not backends and not matrix'

chaos: setup ## break backends, databases, disks and processes, and count what is lost (more than an hour; TESTS=tests/chaos)
	$(BIN)/python -m pytest -m chaos $(TESTS)

matrix: setup | $(UV) ## install the wheel beside the oldest and newest releases of others, for docs/compatibility.md (an hour; MATRIX="logfire")
	@UV=$(UV) $(BIN)/python -m tests.adoption.matrix $(MATRIX)
	@[ -n "$(MATRIX)" ] || $(BIN)/python -m pytest -m matrix tests/app

dist: setup | $(UV) ## build the package into dist/, and install it on each Python here, by pip and by uv (some minutes)
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	UV=$(UV) $(BIN)/python -m pytest -m matrix tests/adoption/test_install.py

sbom: .tools/.locked ## list what is installed in each image, with hashes, in dist/*.cdx.json (CycloneDX)
	@mkdir -p dist
	@for lock in api ui viewer; do \
		PYTHONWARNINGS=ignore .tools/bin/cyclonedx-py requirements locks/$$lock.txt --pyproject pyproject.toml --output-reproducible \
			-o dist/$$lock.cdx.json || exit 1; \
	done

site: .tools/.locked ## build the site of docs/ into .data/site, and check its links
	@NO_MKDOCS_2_WARNING=1 .tools/bin/mkdocs build --strict --quiet

gitleaks: setup ## how many of gitleaks' own samples are recognised (Go is needed, and the network)
	GITLEAKS=1 $(BIN)/python -m pytest tests/gitleaks -s

bench: setup | $(UV) ## measure the cost of tracing, ours and others', for docs/performance.md (half an hour; BENCH="--rounds 1")
	@UV=$(UV) $(BIN)/python -m bench $(BENCH)

bench-short: setup | $(UV) ## measure a few cells, compared with OpenInference only; writes nothing
	@UV=$(UV) $(BIN)/python -m bench --short $(BENCH)

profile: setup ## show where the time of a turn goes (VARIANT=default CELL="mode=stream history=40")
	@$(BIN)/python -m bench.profile $(or $(VARIANT),recorder) $(or $(CELL),mode=stream history=40 seconds=2)

docs: setup ## write the pages that are generated from the source
	@PYTHONPATH=. $(BIN)/python docs/settings.py
	@PYTHONPATH=. $(BIN)/python docs/http_routes.py
	@PYTHONPATH=. $(BIN)/python docs/dashboards/build.py

check: setup ## check format, lint, types, dependencies and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PATH="$(NODE):$$PATH" $(BIN)/pyright
	$(BIN)/deptry .
	$(BIN)/codespell

fmt: setup ## format, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: | $(UV) ## recompile locks/*.txt from pyproject.toml (LOCK=--upgrade for newer releases)
	$(UV) $(COMPILE) $(LOCK) $(SERVICE) --group ui --group dev -o locks/dev.txt
	$(UV) $(COMPILE) --constraint locks/dev.txt $(SERVICE) -o locks/api.txt
	$(UV) $(COMPILE) --constraint locks/dev.txt --extra langfuse --group ui -o locks/ui.txt
	$(UV) $(COMPILE) --constraint locks/dev.txt --extra viewer -o locks/viewer.txt
	$(UV) $(subst pyproject.toml,,$(COMPILE)) $(LOCK) --group tools -o locks/tools.txt
	echo uv | $(UV) $(subst pyproject.toml,-,$(COMPILE)) $(LOCK) --no-annotate -o locks/uv.txt

collector: otel-collector/dist/otelcol ## build the collector (needs Go; takes some minutes the first time, then cached)

otel-collector/dist/otelcol: otel-collector/manifest.yaml otel-collector/probe/main.go otel-collector/build
	@otel-collector/build
	@touch $@

containers: setup collector ## build the images and run the compose stack, on a daemon of its own
	@CONTAINERS=1 $(BIN)/python -m pytest tests/containers

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: install it and run PYTHON=/path/to/python3 make …"; exit 1; }

.venv/.locked: locks/dev.txt | python $(UV)
	@test -x $(BIN)/python || $(UV) venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv
	@$(UV) pip sync --quiet --python $(BIN)/python locks/dev.txt
	@touch $@

.tools/.locked: locks/tools.txt | python $(UV)
	@test -x .tools/bin/python || $(UV) venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .tools
	@$(UV) pip sync --quiet --python .tools/bin/python locks/tools.txt
	@touch $@

.uv/bin/uv: locks/uv.txt
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "Python cannot create virtual environments here: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv .uv
	@.uv/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r locks/uv.txt
	@touch $@
