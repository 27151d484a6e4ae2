"""How blocks are run."""

import torch
from torch import nn

from mvlib.layers.stage import run_blocks


class Plus(nn.Module):
    def forward(self, x, other):
        return x + other


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        block = Plus()
        self.blocks = nn.Sequential(block, block)

    def forward(self, x, other):
        return run_blocks(self.blocks, x, other)


def test_an_exported_sequence_hands_on_what_its_blocks_share():
    """Non-strict tracing puts a class of its own in place of every container's."""
    inputs = torch.ones(2), torch.ones(2)
    program = torch.export.export(Sum(), inputs, strict=False)
    assert program.module()(*inputs).tolist() == [3, 3]
