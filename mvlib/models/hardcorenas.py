"""HardCoRe-NAS: MobileNetV3's blocks, found by a search that never leaves a latency budget.

Nayman et al., "HardCoRe-NAS: Hard Constrained diffeRentiable Neural Architecture Search", 2021, arXiv:2102.11646. The
budget grows from a to f. All have the same stages; the search chose each block's kernel, expansion and attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..registry import register_model
from .efficientnet_blocks import arch
from .mobilenetv3 import V3_SE, MobileNetV3

if TYPE_CHECKING:
    from ._variants.hardcorenas import *

__all__: list[str] = []

_STAGES = ((2, 24, "_nre"), (2, 40, "_nre"), (2, 80, ""), (1, 112, ""), (2, 192, ""))  # stride, channels, ReLU


def _searched(*stages: str) -> dict[str, Any]:
    """Arguments of MobileNetV3 for each stage's blocks: kernel, expansion, and "s" for squeeze-and-excitation."""
    rows = [" ".join(
        f"ir_r1_k{block[0]}_s{1 if i else stride}_e{block[1]}_c{chs}{act}{'_se0.25' if block.endswith('s') else ''}"
        for i, block in enumerate(blocks.split())) for (stride, chs, act), blocks in zip(_STAGES, stages)]
    return dict(block_args=arch("ds_r1_k3_s1_e1_c16_nre", *rows, "cn_r1_k1_s1_c960"), stem_size=32,
                act_layer="hard_swish", se_layer=V3_SE)


register_model.variants(__name__, MobileNetV3, {
    "hardcorenas_a": _searched("53 53s", "53 56s", "56s 56s", "56s 56s", "56s 56s"),
    "hardcorenas_b": _searched("53 53s 33", "53 53 53", "53 53 33 33", "53 33 33 33", "56s 56s 33s"),
    "hardcorenas_c": _searched("53 53s", "53 53 53 53", "54 56s 33 33", "56s 33 33 33", "56s 56s 33s"),
    "hardcorenas_d": _searched("53s 53s", "53s 54s 33s", "54s 33s 33s 33s", "34s 54s 33s 53s", "56s 56s 56s 36s"),
    "hardcorenas_e": _searched("53s 53s", "56s 54s 54s 33s", "54s 36s", "56s 56s 56s 53s", "56s 56s 56s 36s"),
    "hardcorenas_f": _searched("53s 53s", "56s 56s", "56s 56s 33s 33s", "36s 56s 56s 33s", "56s 56s 36s 36s"),
})
