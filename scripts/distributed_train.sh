#!/usr/bin/env bash
# Train on several processes of this machine, one a GPU:
#   bash scripts/distributed_train.sh N DATA --model resnet50 ...
# More of torchrun's own arguments go into TORCHRUN_ARGS, e.g. TORCHRUN_ARGS="--max-restarts 3": a run whose process
# dies then goes on by itself from its newest checkpoint.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
processes=${1:?how many processes? bash scripts/distributed_train.sh N DATA ...}
shift
# shellcheck disable=SC2086
exec "${PYTHON:-python}" -m torch.distributed.run --standalone --nproc-per-node "$processes" ${TORCHRUN_ARGS:-} \
    "$here/train.py" "$@"
