# Everything one does here. `make help` lists it.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONDONTWRITEBYTECODE :=  # the tests start hundreds of processes: each would compile app/ anew

.DEFAULT_GOAL := help
.PHONY: help install serve demo check format test nightly quick docs bench hostile audit sbom clean

help: ## List the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	@touch $(STAMP)

install: $(STAMP) ## Make .venv and install everything, the developers' tools too

serve: $(STAMP) ## Run the service on the embedded default (settings: ADIABAT_…)
	$(BIN)/adiabat serve

demo: $(STAMP) ## The whole road on samples/: ingest, search, tune, switch, search again (EXIT=1 ends there)
	$(BIN)/adiabat demo $(if $(EXIT),--exit)

check: $(STAMP) ## Lint, format, types, imports, the documentation's links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/unasync.py --check
	$(BIN)/python tools/api_docs.py --check
	$(BIN)/python tools/pages.py --check

format: $(STAMP) ## Put the code into the house format
	$(BIN)/python tools/unasync.py
	$(BIN)/python tools/api_docs.py
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Two processes, which take the tests file by file. A third would find no core free: some tests wait for trainers, which
# run where nobody else wants to.
test: $(STAMP) ## Every test but the nightly ones
	$(BIN)/pytest -m 'not nightly' --numprocesses 2 --dist loadfile --durations 15

# The adapters' libraries go beside the rest: with MTEB's `datasets` sentence-transformers imports pandas everywhere.
BESIDE := .venv/adapters
SITE := sh -c '"$$0" -c "import sysconfig; print(sysconfig.get_path(\"purelib\"))"'
nightly: $(STAMP) ## The tests that take many minutes, and those of the adapters, with the libraries that they are for
	$(PYTHON) -m venv $(BESIDE)
	$(SITE) $(BIN)/python >$$($(SITE) $(BESIDE)/bin/python)/beside.pth
	$(BESIDE)/bin/pip install --quiet --constraint constraints.txt --editable '.[adapters,mteb]'
	$(BESIDE)/bin/python -m pytest tests/adapters
	$(BIN)/pytest -m nightly

quick: $(STAMP) ## The tests that take seconds
	$(BIN)/pytest -m 'not slow and not nightly'

docs: $(STAMP) ## The documentation as a site, in build/site
	$(BIN)/python tools/pages.py

# All of them, whatever the ones before came to.
BENCHES := engine.py store.py 'soak.py --minutes 2' 'strain.py --turns 2 --seconds 8'
ON_DATA = 'road.py --data $(DATA)' 'serving.py --data $(DATA) --cycles 20 --json '$$(mktemp -u) 'million.py --data $(DATA) --sizes 10000'
bench: $(STAMP) ## Ten minutes of measurements, told as met or not; DATA=folder of BEIR sets adds those on real data
	@failed=0; for each in $(BENCHES) $(if $(DATA),$(ON_DATA)); do \
	echo "== bench/$$each"; $(BIN)/python bench/$$each || failed=1; done; exit $$failed

hostile: $(STAMP) ## Damaged encoders by the hundred thousand; URL=a running service: its whole API for an hour
	$(if $(URL),PYTHONPATH=. $(BIN)/schemathesis --config-file bench/schemathesis.toml run $(URL)/openapi.json --max-time 3600 $(if $(ADIABAT_API_KEY),-H "Authorization: Bearer $(ADIABAT_API_KEY)"),$(BIN)/python bench/fuzz.py)

audit: $(STAMP) ## Ask the public advisories for known vulnerabilities of the pinned dependencies; needs a way out
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[audit]'
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

sbom: $(STAMP) ## Write sbom.cdx.json: what is installed to serve and tune, with licences
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[audit]'
	$(BIN)/python tools/sbom.py sbom.cdx.json

clean: ## Remove the virtual environment, caches and the demo's data
	rm -rf .venv demo-data .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
