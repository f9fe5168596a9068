# Everything that is done with this project. Only Python 3.11+ and make are needed: `make demo` and `make test` set up the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
CORES ?= 2
# End-to-end tests mostly wait for real time to pass, so more of them run at once than there are cores.
WAITERS ?= 5
# The folder with the recorded data of `bench-decisions`; without it simulated streams alone.
DATA ?=
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup demo test test-core test-e2e test-alone test-cluster test-full full-core full-e2e full-alone full-cluster full-cluster-many full-cluster-alone full-cluster-old cluster cluster-down check format coverage bench bench-kubernetes bench-decisions soak lock clean

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

setup: $(STAMP) ## make the virtual environment from the lock

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "deployguard needs Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) from constraints.txt (about a minute, once)"
	@$(BIN)/python -m pip install --quiet --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: $(STAMP) ## an outage without the guard, and with it, side by side (two minutes)
	$(BIN)/deployguard demo

test: test-core test-e2e test-alone test-cluster ## all tests in their short form (ten minutes at most on two cores)

test-core: $(STAMP)
	$(BIN)/python -m pytest -n $(CORES) -m "not e2e and not full and not cluster"

test-e2e: $(STAMP)
	$(BIN)/python -m pytest -n $(WAITERS) --dist worksteal -m "e2e and not full and not alone and not cluster"

test-alone: $(STAMP)
	$(BIN)/python -m pytest -n 0 -m "alone and not full and not cluster"

# Skipped, and said so, where no cluster is up.
test-cluster: $(STAMP)
	$(BIN)/python -m pytest -n $(WAITERS) --dist worksteal -m "cluster and not full and not alone"

test-full: full-core full-e2e full-alone full-cluster full-cluster-old ## the long forms: a hundred kills, twenty timed runs, thousands of stories

full-core: $(STAMP)
	DEPLOYGUARD_STORIES=1000 $(BIN)/python -m pytest -n $(CORES) tests/properties

full-e2e: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "full and not alone and not cluster"

full-alone: $(STAMP)
	$(BIN)/python -m pytest -n 0 -m "full and alone and not cluster"

full-cluster: full-cluster-many full-cluster-alone

full-cluster-many: cluster
	$(BIN)/python -m tests.cluster tools || echo "WITHOUT HELM: its tests will be skipped"
	DEPLOYGUARD_REQUIRE_CLUSTER=1 $(BIN)/python -m pytest -n $(WAITERS) --dist worksteal -m "cluster and not alone"

full-cluster-alone: cluster
	DEPLOYGUARD_REQUIRE_CLUSTER=1 $(BIN)/python -m pytest -n 0 -m "cluster and alone"

# What the API server does must hold two minors back as well; without containers, so the contracts of the API alone.
full-cluster-old: $(STAMP)
	$(BIN)/python -m tests.cluster up --old
	DEPLOYGUARD_CLUSTER_OLD=1 DEPLOYGUARD_REQUIRE_CLUSTER=1 $(BIN)/python -m pytest -n $(CORES) -o cache_dir=.pytest_cache/old -m cluster tests/contracts/kube
	$(BIN)/python -m tests.cluster down --old

cluster: $(STAMP) ## a real Kubernetes cluster on this machine, built from source the first time (root, Linux and five Debian packages for a real node)
	$(BIN)/python -m tests.cluster up

cluster-down: $(STAMP) ## end it, and leave nothing of it
	$(BIN)/python -m tests.cluster down

check: $(STAMP) ## format, lint, types, layers, and the tests of the pure core with complete branch coverage
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) coverage

coverage: $(STAMP) ## branch coverage of engine and analysis must be complete
	$(BIN)/coverage run -m pytest -q -n 0 -p no:randomly tests/unit tests/scenarios tests/properties/test_quiet.py
	$(BIN)/coverage report --fail-under=100

format: $(STAMP) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## measure: steps, polls, memory, start-up, detection, balancer
	$(BIN)/python -m benchmarks

bench-kubernetes: cluster ## what a bad release and a bad ConfigMap cost the users of a Deployment, guarded and not (15 minutes; QUICK=1: four)
	$(BIN)/python -m benchmarks.kubernetes $(if $(QUICK),--quick)

bench-decisions: $(STAMP) ## deployguard's decisions beside those of other rules on the same streams (an hour; QUICK=1: minutes; DATA=folder: recorded data too)
	$(BIN)/python -m benchmarks.decisions $(if $(QUICK),--quick) $(if $(DATA),--data $(DATA))

soak: $(STAMP) ## a hundred thousand stories of crashes, overtaking and outages
	DEPLOYGUARD_STORIES=100000 $(BIN)/python -m pytest -n $(CORES) tests/properties/test_stories.py

lock: ## write constraints.txt anew: exact versions and hashes, no addresses (needs `uv`)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header --quiet -o constraints.txt

clean: ## remove what was made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build demo-results .coverage
