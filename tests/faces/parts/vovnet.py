from torch import nn

from .case import Case, From

_MAP = [(2, 16, 9, 8)]

CASES = [
    Case("models.vovnet.SequentialAppendList", (nn.Conv2d(4, 6, 1), nn.Conv2d(6, 2, 1))),  # it changes its input
    Case("models.vovnet.OsaBlock", (16, 8, 12, 2), {}, _MAP),
    Case("models.vovnet.OsaBlock", (16, 8, 16, 3), dict(residual=True, attn="ese", act_layer=nn.SiLU), _MAP),
    Case("models.vovnet.OsaBlock", (16, 8, 12, 1), dict(depthwise=True, norm_layer=From("layers.EvoNorm2dB0"),
                                                        drop_path=nn.Identity()), _MAP),
    Case("models.vovnet.OsaStage", (16, 8, 12, 2, 2), {}, _MAP),
    Case("models.vovnet.OsaStage", (16, 8, 12, 3, 1), dict(
        downsample=False, residual=False, depthwise=True, attn="eca", drop_path_rates=[0.0, 0.1, 0.2]), _MAP),
]
