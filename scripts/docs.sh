#!/usr/bin/env bash
# The site, from a fresh clone: makes .venv with the `docs` extra and builds docs/ into site/, where warnings are errors.
#   bash scripts/docs.sh             open site/index.html; it needs no server and no network
#   bash scripts/docs.sh --serve     at http://127.0.0.1:8000, built again when a page changes
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
setup_env docs
export NO_MKDOCS_2_WARNING=1  # the theme's advertisement
if [ "${1-}" = --serve ]; then
    shift
    exec .venv/bin/python -m mkdocs serve "$@"
fi
exec .venv/bin/python -m mkdocs build --strict "$@"
