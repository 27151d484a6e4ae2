"""Runs scripts of this folder in one process; saves what each leaves in RESULT, or how it failed.

    python [-m mvlib.timm] all_of_them.py OUT SCRIPT...
"""

import runpy
import sys
import traceback
from pathlib import Path

import timm
import torch

torch.set_num_threads(1)
results = {"module": timm.__name__}
for script in sys.argv[2:]:
    torch.manual_seed(0)
    try:
        results[script] = runpy.run_path(str(Path(__file__).with_name(f"{script}.py")), run_name="__main__")["RESULT"]
    except Exception:
        results[script] = traceback.format_exc()
torch.save(results, sys.argv[1])
