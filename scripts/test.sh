#!/usr/bin/env bash
# The tests, from a fresh clone: makes .venv, installs the `test` extra, runs ruff, mypy and pytest.
#   bash scripts/test.sh                 everything but the slow tests
#   bash scripts/test.sh -m slow         exhaustive parity
#   bash scripts/test.sh tests/test_registry.py -k wildcard
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
setup_env test
.venv/bin/python -m ruff check .
.venv/bin/python scripts/check_types.py
# Two processes of one thread each are quicker than one of two; tests/conftest.py says which tests stay together.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec .venv/bin/python -m pytest -n "${TEST_PROCESSES:-2}" --max-worker-restart 0 --durations=20 --durations-min=0.1 "$@"
