#!/usr/bin/env bash
# What is generated for a family, after it was written or changed, in the order in which one needs the other:
#   bash scripts/pour.sh FAMILY
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 1 ] && [ -f "mvlib/models/$1.py" ] || { echo "usage: bash scripts/pour.sh FAMILY (a module of mvlib/models)" >&2; exit 2; }
python=.venv/bin/python
[ -x $python ] || { echo "there is no .venv yet: run bash scripts/test.sh once, it makes one" >&2; exit 2; }
$python scripts/sync_catalog.py "$1"
$python scripts/build_index.py
$python scripts/build_stats.py "$1"
$python scripts/build_stubs.py
$python -m tests.parity "$1" --checks keys
