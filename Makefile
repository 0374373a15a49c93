# make install | demo | guide | test | check: each works from a clean clone with Python 3.11 or later, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Else every process that a test or a demo starts compiles all of its modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo guide test browser check bench bench-agentdojo bench-detectors conformance image fuzz chaos full-disk soak format requirements clean

install: $(STAMP) ## the `interlock` command, in .venv/bin

guide: $(STAMP) browser ## follow docs/guide.md word by word from a fresh clone, and say how long it takes
	$(BIN)/python -m examples.guide.follow

demo: $(STAMP) ## set everything up and tell the story with real processes
	$(BIN)/python -m examples.acme.demo

test: $(STAMP) browser ## every test, on real Postgres and in a real Chromium
	$(BIN)/python -m pytest -n 6 --dist loadgroup

browser: ## a Chromium for the tests of the page: the one that is there, else by apt, else it says what to do
	@sh tests/page/install_browser.sh

check: $(STAMP) ## linters, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## measure, print the table, keep JSON
	$(BIN)/python -m bench

conformance: $(STAMP) ## the official MCP suite on a server directly and on Interlock in front of it (needs npm)
	cd bench/conformance && npm install --no-package-lock --no-audit --no-fund
	$(BIN)/python -m bench.conformance --json bench/results/conformance.json

image: $(STAMP) ## build the Containerfile and run it as docs/how-to/deploy.md says, without a daemon (Linux, root; names what is not installed)
	$(BIN)/python -m bench.image --json bench/results/local-image.json

DOJO := .venv-agentdojo
bench-agentdojo: $(STAMP) $(DOJO)/.installed ## a hijacked model against the gate, on the AgentDojo suites (in a virtual environment of their own)
	$(BIN)/python -m bench.agentdojo --python $(DOJO)/bin/python --json bench/results/agentdojo.json

$(DOJO)/.installed: requirements/agentdojo.txt
	$(PYTHON) -m venv $(DOJO)
	$(DOJO)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/agentdojo.txt
	@touch $(DOJO)/.installed

FUZZ := .venv-fuzz
fuzz: $(FUZZ)/.installed ## the API by its own document, the gate's state machine, every parser (MINUTES, SEED; in a virtual environment of their own)
	$(FUZZ)/bin/python -m bench.fuzz --minutes $(MINUTES) --seed $(SEED) --json bench/results/local-fuzz.json

$(FUZZ)/.installed: requirements/fuzz.txt
	$(PYTHON) -m venv $(FUZZ)
	$(FUZZ)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	$(FUZZ)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(FUZZ)/.installed

LOOKERS := .venv-detectors
bench-detectors: $(LOOKERS)/.installed ## what rules and classifier find of public attack texts, and of harmless ones
	PYTHONPATH=src $(LOOKERS)/bin/python -m bench.detectors --json bench/results/detectors.json

$(LOOKERS)/.installed: requirements/detectors.txt
	$(PYTHON) -m venv $(LOOKERS)
	$(LOOKERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/detectors.txt
	@touch $(LOOKERS)/.installed

MINUTES ?= 10
SEED ?= 1
chaos: $(STAMP) ## kill and pause gateways, cut and crash the database, and let the tool's table judge (MINUTES, SEED)
	$(BIN)/python -m bench.chaos --minutes $(MINUTES) --seed $(SEED) --json bench/results/local-chaos.json

full-disk: $(STAMP) ## fill the disk of a real Postgres, its log included, and look at what is executed, told and recorded (as root)
	$(BIN)/python -m bench.full_disk --json bench/results/local-full-disk.json

soak: $(STAMP) ## four gateways behind a load balancer under mixed load, one replaced every minute (MINUTES=60); the plot is docs/images/soak.svg
	$(BIN)/python -m bench.soak --minutes $(MINUTES) --json bench/results/local-soak.json --svg bench/results/local-soak.svg

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

requirements: ## pin the newest versions again
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --extra otel -o requirements/run.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --group dev -o requirements/dev.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --group fuzz -o requirements/fuzz.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade -o requirements/build.txt requirements/build.in
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade -o requirements/profile.txt requirements/profile.in
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --extra detectors --group detectors-bench -o requirements/detectors.txt pyproject.toml

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Interlock needs Python 3.11 or later; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

clean:
	rm -rf $(VENV) $(DOJO) $(LOOKERS) $(FUZZ) .mypy_cache .ruff_cache .pytest_cache .hypothesis .demo .image
