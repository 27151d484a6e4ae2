"""python [-m mvlib.timm] seeded.py SCRIPT ...: timm's script, seeded once more when it has its model: making one draws
other random numbers here than in timm, and the batches would not be the same ones."""

import runpy
import sys

import timm.data
import timm.utils

make = timm.data.create_dataset


def create_dataset(*arguments, **options):
    timm.utils.random_seed(42, 0)
    return make(*arguments, **options)


timm.data.create_dataset = create_dataset
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
