"""timm's classes that take a config, the configs, and those of the architectures: `RegNet(RegNetCfg(depth=13, ...))`.

mvlib's classes take what a config says as arguments; here each has a subclass, by timm's constructor, that spells a
config out. What mvlib's own class made is an instance of it, too. A config has the fields of timm's, with the defaults
of the constructor's arguments; `model_cfgs` (`cfg_cls` of HRNets) are the registry's rows.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from ... import registry
from ...layers.helpers import extend_tuple

__all__ = ["changed"]

Arguments = dict[str, Any]


# --- classes


class _Configured(type):
    """Class of the subclasses: an instance of mvlib's class is one of theirs."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return type.__instancecheck__(vars(cls).get("stands_for", cls), instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return type.__subclasscheck__(vars(cls).get("stands_for", cls), subclass)


class _Kind(NamedTuple):
    """How a class takes a config.

    Attributes:
        module: The family that has the class.
        order: timm's arguments after `cfg`, in its order.
        spell_out: (config, further arguments) -> arguments of mvlib's class.
        only: Arguments that timm's class has besides, and their only values here.
    """

    module: str
    order: str
    spell_out: Callable[[Any, Arguments], Arguments]
    only: Mapping[str, Any] = {}


def _home(family: str) -> Any:
    return importlib.import_module(f"mvlib.models.{family}")


def _make_class(name: str) -> Any:
    kind = _KINDS[name]
    base = getattr(_home(kind.module), name)
    own = inspect.signature(base).parameters
    order = kind.order.split()

    def __init__(self: Any, cfg: Any, *args: Any, **kwargs: Any) -> None:
        if len(args) > len(order):
            raise TypeError(f"{name} takes {len(order)} arguments after cfg by position, not {len(args)}")
        given = dict(zip(order, args))
        if twice := given.keys() & kwargs.keys():
            raise TypeError(f"{name} got {', '.join(sorted(twice))} twice, by position and by name")
        given.update(kwargs)
        for key, value in kind.only.items():
            if given.pop(key, value) != value:
                raise ValueError(f"{name} takes no {key} but {value!r}")
        common = {key: given.pop(key) for key in order if key in given}
        base.__init__(self, **{**kind.spell_out(cfg, given), **common})

    parameters = [inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD,
                                    default=kind.only[key] if key in kind.only else own[key].default) for key in order]
    __init__.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        *(inspect.Parameter(key, inspect.Parameter.POSITIONAL_OR_KEYWORD) for key in ("self", "cfg")), *parameters,
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)])
    doc = f"mvlib's `{name}` by timm's constructor: a config; further arguments replace its fields."
    return _Configured(name, (base,), {
        "__init__": __init__, "__module__": __name__, "__doc__": doc, "stands_for": base})


def _same(config: str, *dropped: str) -> Callable[[Any, Arguments], Arguments]:
    """`spell_out` of a class whose arguments are its config's fields, but for those that it `dropped`."""
    def spell_out(cfg: Any, given: Arguments) -> Arguments:
        return {key: value for key, value in _fields(config, replace(cfg, **given)).items() if key not in dropped}

    return spell_out


def _fields(config: str, cfg: Any) -> Arguments:
    return {field.name: getattr(cfg, field.name) for field in dataclasses.fields(_get(config))}


def _spell_out_csp(cfg: Any, given: Arguments) -> Arguments:
    cfg = replace(cfg, **given)
    return {**{f"stem_{key}": value for key, value in _fields("CspStemCfg", cfg.stem).items()},
            **_fields("CspStagesCfg", cfg.stages),
            **{key: getattr(cfg, key) for key in ("act_layer", "norm_layer", "aa_layer")}}


def _spell_out_maxxvit(cfg: Any, given: Arguments) -> Arguments:
    arguments = _fields("MaxxVitCfg", cfg)
    for section in ("conv", "transformer"):
        part = arguments.pop(f"{section}_cfg")
        arguments.update((f"{section}_{field.name}", getattr(part, field.name)) for field in dataclasses.fields(part))
    if unknown := given.keys() - arguments.keys():
        raise TypeError(f"MaxxVit's config has no {', '.join(sorted(unknown))}")
    return {**arguments, **given}


def _spell_out_mapping(cfg: Mapping[str, Any], given: Arguments) -> Arguments:
    return {**cfg, **given}


def _spell_out_hrnet(cfg: Mapping[str, Any], given: Arguments) -> Arguments:
    bias = {key: given.pop(key) for key in ("head_conv_bias",) if key in given}
    cfg = {**cfg, **given}
    bias.update((key, cfg.pop(key)) for key in ("head_conv_bias",) if key in cfg and key not in bias)
    first, *stages = (cfg[f"stage{i}"] for i in range(1, 5))
    arguments = dict(width=stages[0]["num_channels"][0], modules=tuple(stage["num_modules"] for stage in stages),
                     first=(first["num_channels"][0], first["num_blocks"][0]), depth=stages[0]["num_blocks"][0])
    _check_rebuilt("HighResolutionNet", cfg, _hrnet_config(**arguments))
    return {**arguments, **bias}


def _spell_out_selecsls(cfg: Mapping[str, Any], given: Arguments) -> Arguments:
    if not issubclass(cfg["block"], _home("selecsls").SelecSlsBlock):
        raise ValueError(f"SelecSls is made of SelecSlsBlock, not of {cfg['block'].__name__}")
    stages: list[list[Any]] = []
    for _, _, mid_chs, out_chs, is_first, _ in cfg["features"]:
        stages += [[mid_chs, out_chs, 0]] if is_first else []
        stages[-1][1:] = out_chs, stages[-1][2] + 1
    head = tuple(row[1] for row in cfg["head"])
    arguments = dict(features=tuple(map(tuple, stages)), head=head, last_kernel_size=cfg["head"][-1][2])
    _check_rebuilt("SelecSls", {key: cfg[key] for key in ("features", "head", "num_features")},
                   _selecsls_config(**arguments))
    return {**arguments, **given}


def _check_rebuilt(name: str, cfg: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> None:
    """That the arguments which were read from a config say all that it says."""
    for key, value in rebuilt.items():
        if key not in cfg or _plain(cfg[key]) != _plain(value):
            raise ValueError(f"{name} is not made of {key}={cfg.get(key)!r}; of the other numbers follows {value!r}")
    if unknown := cfg.keys() - rebuilt.keys():
        raise TypeError(f"{name}'s config has no {', '.join(sorted(unknown))}")


def _plain(value: Any) -> Any:
    """A value with tuples in the place of lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


_IN_FIRST = "in_chans num_classes output_stride global_pool drop_rate drop_path_rate zero_init_last"
_KINDS = {
    "ByobNet": _Kind(
        "byobnet", "num_classes in_chans global_pool output_stride img_size drop_rate drop_block_rate drop_block_size "
        "drop_path_rate zero_init_last", _same("ByoModelCfg", "zero_init_last")),  # timm's reads the argument alone
    "CspNet": _Kind("cspnet", _IN_FIRST, _spell_out_csp),
    "HighResolutionNet": _Kind("hrnet", "in_chans num_classes output_stride global_pool drop_rate head",
                               _spell_out_hrnet, dict(output_stride=32)),
    "MaxxVit": _Kind("maxxvit", "img_size in_chans num_classes global_pool drop_rate drop_path_rate",
                     _spell_out_maxxvit),
    "MultiScaleVit": _Kind("mvitv2", "img_size in_chans global_pool num_classes drop_path_rate drop_rate",
                           _same("MultiScaleVitCfg", "pool_type", "act_layer")),  # timm's reads neither
    "NormFreeNet": _Kind("nfnet", "num_classes in_chans global_pool output_stride drop_rate drop_path_rate",
                         _same("NfCfg")),
    "RegNet": _Kind("regnet", _IN_FIRST, _same("RegNetCfg")),
    "SelecSls": _Kind("selecsls", "num_classes in_chans drop_rate global_pool", _spell_out_selecsls),
    "VovNet": _Kind("vovnet", "in_chans num_classes global_pool output_stride norm_layer act_layer drop_rate "
                    "drop_path_rate", _spell_out_mapping),
}
_CLASSES = {"byoanet": "ByobNet", "mobilevit": "ByobNet", **{kind.module: name for name, kind in _KINDS.items()}}


# --- configs


def _make_config(name: str) -> type:
    model, prefix, names = _CONFIGS[name]
    arguments = inspect.signature(getattr(_home(_KINDS[model].module), model))
    rows: list[Any] = []
    for key in names.split():
        argument = arguments.parameters.get(f"{prefix}{key}")
        annotation = Any if argument is None else argument.annotation
        if key in _OTHER.get(name, {}):
            rows.append((key, annotation, _OTHER[name][key]))
        elif argument is None or argument.default is argument.empty:
            rows.append((key, annotation))
        else:
            rows.append((key, annotation, argument.default))
    doc = f"What timm's `{model}` is made of, see mvlib's."
    namespace: dict[str, Any] = {"__module__": __name__, "__doc__": doc}
    if name in _FILLED:
        namespace["__post_init__"] = _FILLED[name]
    return dataclasses.make_dataclass(name, rows, namespace=namespace)


def _spread_over_stages(self: Any) -> None:
    self.embed_dim, self.num_heads, self.stride_kv = _home("mvitv2").by_stage(
        len(self.depths), self.embed_dim, self.num_heads, self.stride_q, self.stride_kv, self.stride_kv_adaptive)


def _pad_to_stages(self: Any) -> None:
    count = len(self.depth)
    if len(self.out_chs) != count:
        raise ValueError(f"depth and out_chs have a number for each stage, not {count} and {len(self.out_chs)}")
    for field in dataclasses.fields(self)[2:]:
        setattr(self, field.name, extend_tuple(getattr(self, field.name), count))


def _new(name: str, **fields: Any) -> Any:
    return dataclasses.field(default_factory=lambda: _get(name)(**fields) if name else {})


_CONFIGS = {  # the class, what its arguments begin with, and timm's names of them
    "ByoModelCfg": (
        "ByobNet", "", "blocks downsample stem_type stem_pool stem_chs width_factor num_features zero_init_last "
        "fixed_input_size act_layer norm_layer aa_layer head_hidden_size head_type attn_layer attn_kwargs "
        "self_attn_layer self_attn_kwargs block_kwargs"),
    "CspModelCfg": ("CspNet", "", "stem stages zero_init_last act_layer norm_layer aa_layer"),
    "CspStagesCfg": (
        "CspNet", "", "depth out_chs stride groups block_ratio bottle_ratio avg_down attn_layer attn_kwargs "
        "stage_type block_type expand_ratio cross_linear down_growth"),
    "CspStemCfg": ("CspNet", "stem_", "out_chs stride kernel_size padding pool"),
    "MaxxVitCfg": (
        "MaxxVit", "", "embed_dim depths block_type stem_width stem_bias conv_cfg transformer_cfg head_hidden_size "
        "weight_init"),
    "MultiScaleVitCfg": (
        "MultiScaleVit", "", "depths embed_dim num_heads mlp_ratio pool_first expand_attn qkv_bias use_cls_token "
        "use_abs_pos residual_pooling mode kernel_qkv stride_q stride_kv stride_kv_adaptive patch_kernel patch_stride "
        "patch_padding pool_type rel_pos_type act_layer norm_layer norm_eps"),
    "NfCfg": (
        "NormFreeNet", "", "depths channels alpha stem_type stem_chs group_size attn_layer attn_kwargs attn_gain "
        "width_factor bottle_ratio num_features ch_div reg extra_conv gamma_in_act same_padding std_conv_eps "
        "skipinit zero_init_fc act_layer"),
    "RegNetCfg": (
        "RegNet", "", "depth w0 wa wm group_size bottle_ratio se_ratio group_min_ratio stem_width downsample "
        "linear_out preact num_features act_layer norm_layer"),
}
_FILLED = {"CspStagesCfg": _pad_to_stages, "MultiScaleVitCfg": _spread_over_stages}  # what a stage's value follows from
_OTHER = {  # defaults that are not the argument's
    "ByoModelCfg": dict(aa_layer="", attn_kwargs=_new(""), self_attn_kwargs=_new(""), block_kwargs=_new("")),
    "MultiScaleVitCfg": dict(pool_type="max", act_layer="gelu"),
    "MaxxVitCfg": dict(conv_cfg=_new("MaxxVitConvCfg"), transformer_cfg=_new("MaxxVitTransformerCfg")),
}
_OURS = {"MaxxVitConvCfg": ("maxxvit", "ConvConfig"), "MaxxVitTransformerCfg": ("maxxvit", "TransformerConfig")}


# --- configs of architectures


def _regnet_like(config: str, row: Arguments) -> Any:
    return _get(config)(**{key: row[key] for key in _CONFIGS[config][2].split() if key in row})


def _csp_config(row: Arguments) -> Any:
    stem = {key.removeprefix("stem_"): value for key, value in row.items() if key.startswith("stem_")}
    stages = {key: row[key] for key in _CONFIGS["CspStagesCfg"][2].split() if key in row}
    return _regnet_like("CspModelCfg", {
        **row, "stem": _get("CspStemCfg")(**stem), "stages": _get("CspStagesCfg")(**stages)})


def _maxxvit_config(row: Arguments) -> Any:
    parts = {f"{section}_cfg": _get(name)(**{
        key.removeprefix(f"{section}_"): value for key, value in row.items() if key.startswith(f"{section}_")})
        for section, name in (("conv", "MaxxVitConvCfg"), ("transformer", "MaxxVitTransformerCfg"))}
    return _regnet_like("MaxxVitCfg", {**row, **parts})


def _vovnet_config(row: Arguments) -> Arguments:
    own = inspect.signature(_get("VovNet").stands_for).parameters
    names = "stem_chs stage_conv_chs stage_out_chs layer_per_block block_per_stage residual depthwise attn".split()
    values = {key: row.get(key, own[key].default) for key in names}
    return {key: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for key, value in values.items()}


def _levit_config(row: Arguments) -> Arguments:
    return {key: value for key, value in row.items() if key not in ("use_conv", "distilled")}


def _hrnet_config(
    width: int = 18, modules: Sequence[int] = (1, 4, 3), first: Sequence[int] = (64, 4), depth: int = 4
) -> Arguments:
    def stage(count: int, block: str, blocks: Sequence[int], channels: Sequence[int]) -> Arguments:
        return dict(num_modules=count, num_branches=len(blocks), block_type=block, num_blocks=tuple(blocks),
                    num_channels=tuple(channels), fuse_method="SUM")

    stages = [stage(count, "BASIC", (depth,) * branches, [width * 2**i for i in range(branches)])
              for branches, count in enumerate(modules, start=2)]
    rows = [stage(1, "BOTTLENECK", first[1:], first[:1]), *stages]
    return dict(stem_width=64, **{f"stage{i}": row for i, row in enumerate(rows, start=1)})


def _selecsls_config(
    features: Sequence[tuple[int, int, int]], head: Sequence[int], last_kernel_size: int = 1
) -> Arguments:
    chs, blocks = 32, []
    for mid_chs, last_chs, depth in features:
        for i in range(depth):
            out_chs = last_chs if i == depth - 1 else mid_chs
            blocks.append((chs, mid_chs if i else 0, mid_chs, out_chs, i == 0, 1 if i else 2))
            chs = out_chs
    last = len(head) - 1
    convs = [(before, after, last_kernel_size if i == last else 3, 1 if i % 2 else 2)
             for i, (before, after) in enumerate(zip((chs, *head), head))]
    return dict(features=blocks, head=convs, num_features=head[-1])


_UNNAMED = {"vovnet": {"ese_vovnet19b": dict(block_per_stage=(1, 1, 1, 1), layer_per_block=3)}}  # no architecture
_MAKERS: dict[str, Callable[[Arguments], Any]] = {  # family: (an architecture's arguments) -> its config
    "byoanet": lambda row: _regnet_like("ByoModelCfg", row),
    "byobnet": lambda row: _regnet_like("ByoModelCfg", row),
    "cspnet": _csp_config,
    "hrnet": lambda row: _hrnet_config(**{key: value for key, value in row.items() if key != "head_conv_bias"}),
    "levit": _levit_config,
    "maxxvit": _maxxvit_config,
    "mobilevit": lambda row: _regnet_like("ByoModelCfg", row),
    "mvitv2": lambda row: _regnet_like("MultiScaleVitCfg", row),
    "nfnet": lambda row: _regnet_like("NfCfg", row),
    "regnet": lambda row: _regnet_like("RegNetCfg", row),
    "vovnet": _vovnet_config,
}


def _key(family: str, name: str) -> str | None:
    """timm's name of the config of an architecture; None where that is another one's."""
    if family == "maxxvit":
        return re.sub(r"_(224|256|384|512)$", "", name) if name != "maxvit_t" else None
    if family == "byoanet" and name != "lambda_resnet26rpt_256":
        return name.removesuffix("_256")
    return None if "levit_conv" in name or name.endswith("_ssld") else name


def _make_configs(family: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in registry.list_models(module=family):
        row, key = getattr(registry.load_entrypoint(name), "arguments", None), _key(family, name)
        if row is not None and key is not None and key not in made:
            made[key] = _MAKERS[family](row)
    return {**made, **{key: _MAKERS[family](row) for key, row in _UNNAMED.get(family, {}).items()}}


@cache
def _of(family: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configs of a family's architectures, twice: users may change the first."""
    return _make_configs(family), _make_configs(family)


def changed(family: str, name: str) -> tuple[Any, Any] | None:
    """The class, and an architecture's config where a user changed it, or added it, in `model_cfgs`."""
    if family not in _CLASSES:
        return None
    current, written = _of(family)
    key = name if name in current else _key(family, name)
    if key not in current or current[key] == written.get(key):
        return None
    return _get(_CLASSES[family]), current[key]


# --- by name


@cache
def _get(name: str) -> Any:
    if name in _KINDS:
        return _make_class(name)
    if name in _CONFIGS:
        return _make_config(name)
    module, ours = _OURS[name]
    return getattr(_home(module), ours)


def __getattr__(name: str) -> Any:
    family, _, kind = name.partition(".")
    if kind:
        return _of(family)[0]
    if name in _KINDS or name in _CONFIGS or name in _OURS:
        return _get(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
