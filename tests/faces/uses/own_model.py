"""An own architecture in timm's registry: register_model, build_model_with_cfg, a _cfg, tags, features."""

import timm
import torch
from common import fill, images
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import ClassifierHead, ConvNormAct, DropPath, SqueezeExcite, create_conv2d
from timm.models import (
    build_model_with_cfg,
    checkpoint_seq,
    generate_default_cfgs,
    named_apply,
    register_model,
)
from timm.models._features import feature_take_indices
from torch import nn

__all__ = ["ColonyNet"]


def _cfg(url="", **kwargs):
    return {"url": url, "num_classes": 1000, "input_size": (3, 64, 64), "pool_size": (8, 8), "crop_pct": 0.9,
            "interpolation": "bicubic", "mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD,
            "first_conv": "stem.conv", "classifier": "head.fc", **kwargs}


default_cfgs = generate_default_cfgs({
    "colonynet_tiny.first_in1k": _cfg(file="colonynet.pth"),
    "colonynet_tiny.second_in1k": _cfg(crop_pct=1.0),
})


class Stage(nn.Module):
    def __init__(self, width, wider, drop_path):
        super().__init__()
        self.conv1 = ConvNormAct(width, wider, 3, stride=2)
        self.conv2 = create_conv2d(wider, wider, 3, depthwise=True)
        self.se = SqueezeExcite(wider)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x):
        x = self.conv1(x)
        return x + self.drop_path(self.se(self.conv2(x)))


class ColonyNet(nn.Module):
    def __init__(self, num_classes=1000, in_chans=3, widths=(16, 24, 32), global_pool="avg", drop_rate=0.0,
                 drop_path_rate=0.0):
        super().__init__()
        self.num_classes, self.drop_rate, self.grad_checkpointing = num_classes, drop_rate, False
        self.num_features = self.head_hidden_size = widths[-1]
        self.stem = ConvNormAct(in_chans, widths[0], 3, stride=1)
        self.stages = nn.Sequential(*(Stage(*pair, drop_path_rate) for pair in zip(widths, widths[1:])))
        self.feature_info = [dict(num_chs=width, reduction=2 ** (i + 1), module=f"stages.{i}")
                             for i, width in enumerate(widths[1:])]
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        named_apply(self._init, self)

    @staticmethod
    def _init(module, name):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)

    @torch.jit.ignore
    def group_matcher(self, coarse=False):
        return dict(stem=r"^stem", blocks=r"^stages\.(\d+)")

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable=True):
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self):
        return self.head.fc

    def reset_classifier(self, num_classes, global_pool=None):
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_intermediates(self, x, indices=None):
        taken, last = feature_take_indices(len(self.stages), indices)
        found, x = [], self.stem(x)
        for i, stage in enumerate(self.stages[:last + 1]):
            x = stage(x)
            if i in taken:
                found.append(x)
        return x, found

    def forward_features(self, x):
        x = self.stem(x)
        return checkpoint_seq(self.stages, x) if self.grad_checkpointing else self.stages(x)

    def forward(self, x):
        return self.head(self.forward_features(x))


def checkpoint_filter_fn(state_dict, model):
    return {key.removeprefix("net."): value for key, value in state_dict.items()}


@register_model
def colonynet_tiny(pretrained=False, **kwargs):
    """The only size."""
    return build_model_with_cfg(ColonyNet, "colonynet_tiny", pretrained,
                                feature_cfg=dict(out_indices=(0, 1), flatten_sequential=True),
                                pretrained_filter_fn=checkpoint_filter_fn, **dict(dict(widths=(8, 16, 24)), **kwargs))


@register_model
def colonynet_plain(pretrained=False, **kwargs):
    """As older code does it: no builder, the configuration set by hand."""
    model = ColonyNet(**{key: value for key, value in kwargs.items()
                         if key not in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")})
    model.default_cfg = _cfg(crop_pct=0.5)
    return model


x = images(2, 3, 64, 64)
source = fill(timm.create_model("colonynet_tiny"))
torch.save({f"net.{key}": value for key, value in source.state_dict().items()}, "colonynet.pth")
loaded = timm.create_model("colonynet_tiny", pretrained=True, num_classes=5, in_chans=1)
second = timm.create_model("colonynet_tiny.second_in1k", drop_path_rate=0.1)
plain = fill(timm.create_model("colonynet_plain", num_classes=4))
features = fill(timm.create_model("colonynet_tiny", features_only=True, out_indices=(1,)))
loaded.eval(), source.eval(), plain.eval(), features.eval()
with torch.no_grad():
    trunk = loaded.forward_features(x[:, :1])
    source.set_grad_checkpointing()
    RESULT = {
        "logits": source(x), "trunk": trunk, "plain": plain(x), "features": features(x),
        "channels": features.feature_info.channels(), "reduction": features.feature_info.reduction(),
        "classes": [loaded.num_classes, plain.num_classes, loaded.get_classifier().out_features],
        "crop": [m.default_cfg["crop_pct"] for m in (loaded, second, plain)],
        "cfg": [loaded.pretrained_cfg["architecture"], loaded.pretrained_cfg["tag"], second.pretrained_cfg["tag"]],
        "listed": timm.list_models("colonynet*"), "tagged": timm.list_models("colonynet*", pretrained=True),
        "is": [timm.is_model("colonynet_tiny"), timm.is_model("colonynet_huge")],
        "intermediates": source.forward_intermediates(x, 1)[1],
        "drop": [type(stage.drop_path).__name__ for stage in second.stages],
    }
