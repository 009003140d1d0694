# make demo   from nothing to a rendered map
# make test   from nothing to a tested checkout
# make lint   ruff and mypy
# make hashes every file that is installed, torch aside, against the sha256 in locks/
# make sbom   what tilemapper runs on, as CycloneDX JSON
# make faults the crash and fault tests, and the table of what they counted; about an hour
# make soak   an hour of small scenes under random faults
# PIP_ARGS passes options to pip, for example an index with CPU builds of torch.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint hashes sbom faults soak browser-test clean

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The stamps are newer than what they were installed from, so a second call installs nothing.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e .
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[test,lint]'
	touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	mkdir -p demo
	$(BIN)/tilemapper sample demo/city.tif --truth demo/truth.tif --size 2048 --seed 0 --overwrite
	$(BIN)/tilemapper render demo/city.tif demo/map.tif --overwrite
	$(BIN)/python -m tilemapper.report.picture demo/city.tif demo/map.tif demo/before_after.png
	@echo "map:     $(CURDIR)/demo/map.tif"
	@echo "picture: $(CURDIR)/demo/before_after.png"

# A file's tests stay together: they share what is dear to make. More processes would only wait.
# Files begin in the order of tests/conftest.py, the longest first. Each process and each program
# that a test starts imports the same files: they are compiled once, whatever the shell says.
# A process that dies is a failure and stays away: started again, it meets the same test for ever.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --max-worker-restart 0 \
		--dist loadfile --no-loadscope-reorder

faults: $(VENV)/.test
	$(BIN)/python -m pytest -m 'fault and not soak'
	$(BIN)/python -m tests.faults.table

soak: $(VENV)/.test
	$(BIN)/python -m pytest -m soak

# Needs chromium and chromedriver on the PATH.
browser-test: $(VENV)/.test
	$(BIN)/python -m pytest -m browser

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Of CPython 3.11 on x86-64 Linux; others would be offered other files.
LOCK := locks/linux-x86_64-cp311.txt
hashes: $(LOCK) | $(VENV)/bin/python
	rm -rf build/hashes
	$(BIN)/python -m pip download --quiet $(PIP_ARGS) --require-hashes --no-deps --dest build/hashes -r $(LOCK)
	@echo "hashes: $$(ls build/hashes | wc -l) files are what $(LOCK) says"

sbom:
	test -x $(VENV)/sbom/bin/python || $(PYTHON) -m venv $(VENV)/sbom
	$(VENV)/sbom/bin/python -m pip install --quiet $(PIP_ARGS) 'cyclonedx-bom>=7.5,<8'
	mkdir -p build
	(cat $(LOCK); grep '^torch==' constraints.txt) | $(VENV)/sbom/bin/cyclonedx-py requirements - \
	    --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.cdx.json
	@echo "sbom: build/sbom.cdx.json"

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
