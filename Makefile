# The only developer verbs; CI and the README call these and nothing else.
SHELL := /bin/bash
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.locked
# Tests start services by the hundred: what they import is compiled once, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

# Half as many again as there are cores, for tests wait a third of their time, those with servers
# more than half: three times the cores.
WORKERS := --numprocesses=$(shell echo $$(( ($$(nproc) * 3 + 1) / 2 )))
MANY_WORKERS := --numprocesses=$(shell echo $$(( $$(nproc) * 3 )))

# Each on the core that is free first. Right for tests that share nothing but what each worker makes for
# itself: folders, and servers on ports from the kernel. A test beside others takes its time: only what
# hangs is ended.
SIDE_BY_SIDE := $(MANY_WORKERS) --dist=worksteal --timeout=180

# Devices wait more than they compute, so some files of tests at once cost little: one goes on while the
# devices of another reboot. A file's tests stay together and in order, for they share devices.
SOME_FILES := --numprocesses=4 --dist=loadfile --no-loadscope-reorder -p no:randomly

.PHONY: setup demo check test soak bench docs crds packages image lock clean

setup: $(STAMP) ## everything onto a fresh machine
	@tests/setup/system.sh
	@tests/setup/identity.sh
	@tests/setup/keycloak.sh
	@tests/setup/tpm.sh
	@tests/setup/provisioning.sh

$(STAMP): requirements.lock setup.cfg
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Homeport needs Python 3.11 or newer; set PY=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || $(PY) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

demo: setup ## the story, live; CHECK=1 asserts each step and stops everything
	@$(BIN)/python -m tests.e2e.demo $(if $(CHECK),--check,)

check: $(STAMP) ## format, lint, types, import contracts, unit tests: under two minutes
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q $(WORKERS) tests/unit

test: setup ## all tests; what CI calls
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) tests/contract tests/simulation tests/conformance -m "not soak and not bench"
	@$(BIN)/python -m pytest -q $(SOME_FILES) tests/e2e -m "not soak and not bench"

soak: setup ## the long forms of the same tests; each prints the bound it ran with
	@HOMEPORT_SOAK=1 $(BIN)/python -m pytest -q -s tests/contract tests/simulation tests/conformance tests/e2e -p no:randomly -m "not bench"

bench: setup ## figures, each beside what it is compared with; FULL=1 has 100 000 devices in the stores too
	@$(BIN)/python -m bench $(if $(FULL),--full,)
	@$(BIN)/python -m pytest -q -s tests/e2e -m bench -p no:randomly

crds: $(STAMP) ## regenerate crds/ from the models, ClusterRoles from the roles (a test fails when they are stale)
	@$(BIN)/python -m resources.schema crds
	@$(BIN)/python -m apiserver.auth.clusterroles

packages: ## the agent as a Debian package, and as RPMs where there is rpmbuild, in out/packages
	@agent/packaging/build-deb.sh out/packages
	@if command -v rpmbuild >/dev/null; then agent/packaging/build-rpm.sh out/packages; \
	  else echo "no rpmbuild: no RPMs"; fi

# An operating system that bootc runs, and what its image with the agent in it is called.
BASE ?= quay.io/fedora/fedora-bootc:42
TAG ?= localhost/homeport-device:latest

image: ## the agent added to the image BASE of an operating system, as TAG
	@podman build --file agent/packaging/Containerfile --build-arg BASE=$(BASE) \
	  --build-arg COMMIT=$$(git rev-parse --short=12 HEAD) --tag $(TAG) .

# All extras but tpm, which builds on libtss2 of the system: tests/setup/tpm.sh has that.
LOCKED := agent apiserver controllers cli dev

lock: ## renew requirements.lock
	@$(BIN)/uv pip compile --quiet setup.cfg $(LOCKED:%=--extra=%) --generate-hashes --no-annotate --universal --python-version 3.11 -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache out
