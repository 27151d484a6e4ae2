from torch import nn

from .case import Case

_REPVIT, _MAP = "models.repvit.", [(2, 16, 9, 7)]

CASES = [
    Case(_REPVIT + "ConvNorm", (16, 12, 3, 2, 1, 1, 4, 0.5), {}, _MAP),
    Case(_REPVIT + "ConvNorm", (16, 12), {}, _MAP),
    Case(_REPVIT + "NormLinear", (60, 70), {}, [(4, 60)]),
    Case(_REPVIT + "NormLinear", (60, 70, False, 0.1), {}, [(4, 60)]),
    Case(_REPVIT + "RepVggDw", (16, 3), {}, _MAP),
    Case(_REPVIT + "RepVggDw", (16, 5, True), {}, _MAP),
    Case(_REPVIT + "RepVitMlp", (16, 24, nn.SiLU), {}, _MAP),
    Case(_REPVIT + "RepViTBlock", (16, 2, 3, True, nn.GELU), {}, _MAP),
    Case(_REPVIT + "RepVitStem", (3, 16, nn.GELU), {}, [(2, 3, 32, 32)]),
    Case(_REPVIT + "RepVitDownsample", (16, 2, 24, 3, nn.GELU), dict(legacy=True), _MAP),
    Case(_REPVIT + "RepVitStage", (16, 24, 2, 2, nn.GELU), {}, _MAP),
    Case(_REPVIT + "RepVitClassifier", (60, 70), {}, [(4, 60)]),
    Case(_REPVIT + "RepVitClassifier", (60, 70, True, 0.1), {}, [(4, 60)]),
    Case("models.RepVit", (), dict(embed_dim=(16, 24), depth=(1, 1), num_classes=7), [(2, 3, 64, 64)]),
]
