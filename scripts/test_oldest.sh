#!/usr/bin/env bash
# The tests with the oldest of each package that mvlib's dependencies in pyproject.toml allow, in .venv-oldest.
# Python 3.11: those packages have no wheels for later ones.
#   bash scripts/test_oldest.sh                     everything but the slow tests
#   bash scripts/test_oldest.sh tests/test_hub.py
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv-oldest/bin/python
[ -x "$python" ] || "${PYTHON:-python3.11}" -m venv .venv-oldest
wanted=$(cksum <pyproject.toml)
if [ "$(cat .venv-oldest/.installed 2>/dev/null)" != "$wanted" ]; then
    # Of the `test` extra all but the newer release of what has a floor.
    "$python" - >.venv-oldest/requirements.txt <<'EOF'
import re
import tomllib

with open("pyproject.toml", "rb") as stream:
    project = tomllib.load(stream)["project"]
floors = [requirement.replace(">=", "==") for requirement in project["dependencies"]]
names = {re.split("[=<>]", floor)[0] for floor in floors}
tests = [requirement for requirement in project["optional-dependencies"]["test"]
         if re.split("[=<>]", requirement)[0] not in names]
print(*floors, *(re.sub(r"^mvlib(?=\[)", "--editable .", requirement) for requirement in tests), sep="\n")
EOF
    "$python" -m pip install --quiet --disable-pip-version-check --requirement .venv-oldest/requirements.txt
    echo "$wanted" >.venv-oldest/.installed
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$python" -m pytest -n "${TEST_PROCESSES:-2}" "$@"
