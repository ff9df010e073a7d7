# Everything runs in .venv, which `make` builds from the lock file; only Python 3.11 and pip are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROTOS := $(wildcard proto/facedex/v1/*.proto)
# Tests and demo start many programs: each module is compiled once, not at each start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-gpu coverage lint proto bench torture fuzz lock sbom clean install

install: $(STAMP)

$(STAMP): setup.cfg pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --quiet --constraint requirements.lock --editable '.[server,postgres,tracing,calibration,training,milvus,ray]' --group dev
	touch $@

demo: install
	$(BIN)/python demo/demo.py

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal

# What needs a GPU: skipped, with the reason, where there is none; failing where there is one that cannot be used.
test-gpu: install
	$(BIN)/python -m pytest tests/gpu -m gpu

# The same tests, and which lines and branches they run: half as long again.
coverage: install
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/python -m tests.generated_stubs

# Facedex beside its peers in one run; TEMPLATES=1000000 takes about half an hour and 10 GB.
TEMPLATES ?= 100000
bench: install
	$(BIN)/pip install --quiet --group bench
	$(BIN)/pip install --quiet --no-deps 'face_recognition>=1.3'
	$(BIN)/python -m benchmarks.search --templates $(TEMPLATES) --json build/search.json --plot build/search.png
	$(BIN)/python -m benchmarks.identify --json build/identify.json
	$(BIN)/python -m benchmarks.embedding --json build/embedding.json
	$(BIN)/python -m benchmarks.changes --sizes 10000,$(TEMPLATES) --json build/changes.json
	$(BIN)/python -m benchmarks.restart --templates $(TEMPLATES) --json build/restart.json
	$(BIN)/python -m benchmarks.crowd --templates $(TEMPLATES) --json build/crowd.json
	$(BIN)/python -m benchmarks.calibration --json build/calibration.json

# Kills servers under load and counts broken promises: so many times on SQLite, a fifth of it on PostgreSQL.
KILLS ?= 1000
torture: install
	$(BIN)/python -m tests.torture --kills $(KILLS)

# Hostile bytes for decoder, loaders and every request: so many seconds each, with atheris.
SECONDS ?= 60
fuzz: install
	$(BIN)/pip install --quiet --group fuzz
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

proto: install
	$(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=proto --grpc_python_out=proto \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --mypy_out=quiet:proto \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:proto $(PROTOS)

# What CI used: every package that the environment holds, with its version.
lock: install
	$(BIN)/pip freeze --exclude-editable > requirements.lock

# What a server is made of, as CycloneDX: the packages of a fresh environment, as the image has them.
sbom: install
	rm -rf build/sbom && $(PYTHON) -m venv build/sbom
	build/sbom/bin/pip install --quiet --constraint requirements.lock '.[server,postgres,tracing]'
	$(BIN)/python -m cyclonedx_py environment --output-format JSON --output-file build/sbom.cdx.json build/sbom/bin/python

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage
