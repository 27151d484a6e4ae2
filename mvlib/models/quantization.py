"""torchvision's quantizable classifiers, float or int8, as the architectures `quantized_<name>`.

The networks are torchvision's own (torchvision.models.quantization): its published int8 files name torch.ao's modules,
and only the same modules give the same numbers. What is added here are the habits of mvlib's models, a calibration that
costs a small image instead of a 299x299 one, and the loading of files whose state dict holds more than tensors.

An int8 model runs on the CPU and is not trained: build with `quantize=True`, load int8 weights. The float model
(`quantize=False`) takes the float weights of the architecture's plain namesake. Names that are not here are those of
torchvision.models.quantization, as `mvlib.models` has them.

Integer arithmetic: Jacob et al., 2017, https://arxiv.org/abs/1712.05877.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao import quantization as ao
from torchvision.models import quantization as tv
from torchvision.models.mobilenetv3 import _mobilenet_v3_conf
from torchvision.models.quantization.mobilenetv2 import QuantizableInvertedResidual as MobileNetV2Block
from torchvision.models.quantization.mobilenetv3 import QuantizableInvertedResidual as MobileNetV3Block
from torchvision.models.quantization.resnet import QuantizableBasicBlock, QuantizableBottleneck
from torchvision.models.quantization.utils import _replace_relu

from ..errors import CheckpointError, ConfigError
from ..layers.weight_init import init_normal, init_trunc_weight
from ..registry import register_model

__path__: list[str] = []  # torchvision has a package of this name, whose modules are found through this

__all__ = [
    "QuantizedGoogLeNet", "QuantizedInception3", "QuantizedMobileNetV2", "QuantizedMobileNetV3",
    "QuantizedResNet", "QuantizedShuffleNetV2",
]

StateDict = dict[str, Any]  # torch.ao packs a linear layer's weight and bias in a tuple and its dtype beside them
Check = Callable[[StateDict, StateDict], None]


class _Quantizable:
    """What is common to the classes below; each has one of torchvision's for its second base.

    Arguments of all: `in_chans` is 3, as in all of torchvision's models; `norm_layer` makes the norms, batch norms
    unless given (nothing else can be made int8); `dropout` is that of the features before the classifier.

    Attributes:
        is_quantized: Whether the model is int8.
        backend: The engine that an int8 model was made for; `default_backend` that of torchvision's int8 weights.
        classifier_path: Path of the classifier; `classifier_paths` also has those of the auxiliary heads, if any.
        auxiliary_heads: Modules that help training, None in a model built without them: {name: path of classifier}.
        inits: What refines the initial weights of classifiers, by path.
        body: Names of the modules from image to final feature map: those before `avgpool`, or before the classifier.
        calibration_size: Side in pixels of the random image that sets the first quantisation ranges.
    """

    classifier_path: ClassVar[str] = "fc"
    auxiliary_heads: ClassVar[dict[str, str]] = {}
    inits: ClassVar[dict[str, Callable[[Any], None]]] = {}
    calibration_size: ClassVar[int] = 64
    default_backend: ClassVar[str] = "fbgemm"

    is_quantized = False
    backend = ""
    in_chans = 3

    def _adopt(self, num_classes: int, in_chans: int) -> None:
        """Make what torchvision's constructor built one of our models; the last line of every constructor."""
        if in_chans != 3:
            raise ConfigError(f"torchvision's quantizable models take images of 3 channels, not in_chans={in_chans}")
        _replace_relu(self)
        self.num_classes = num_classes
        names = takewhile(lambda name: name not in ("avgpool", "classifier", "fc"), vars(self)["_modules"])
        self.body = tuple(name for name in names if name not in self.auxiliary_heads)
        auxiliary = [path for name, path in self.auxiliary_heads.items() if getattr(self, name) is not None]
        self.classifier_paths = (self.classifier_path, *auxiliary)
        self._head_inputs = {path: self.get_submodule(path).in_features for path in self.classifier_paths}
        self.num_features = self.head_hidden_size = self._head_inputs[self.classifier_path]
        if num_classes == 0:
            self.reset_classifier(0)

    # forward

    def forward_features(self, x: Tensor) -> Tensor:
        """Image (B, 3, H, W) -> final feature map (B, num_features, h, w), a quantized tensor in an int8 model."""
        x = self.quant(self._transform_input(x) if hasattr(self, "_transform_input") else x)
        for name in self.body:
            x = self.get_submodule(name)(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Final feature map -> logits (B, num_classes), or where `pre_logits` the classifier's input; both float."""
        x = self._pool(x)
        return self.dequant(x if pre_logits else self.get_classifier()(x))

    def _pool(self, x: Tensor) -> Tensor:
        return self.dropout(torch.flatten(self.avgpool(x), 1))

    # head

    def get_classifier(self) -> nn.Module:
        """The classifier, an `nn.Identity` where there is none."""
        return self.get_submodule(self.classifier_path)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier with a fresh one; 0 classes removes it.

        Raises:
            ConfigError: The model is int8 and cannot learn a new classifier, or the pooling is not "avg".
        """
        if global_pool not in (None, "avg"):
            raise ConfigError(f"'{_name(self)}' pools by average alone, not by global_pool={global_pool!r}")
        if self.is_quantized and num_classes:
            raise ConfigError(f"'{_name(self)}' is int8 and cannot learn a classifier of {num_classes} classes; build "
                              f"it with quantize=False and reset that one's, or remove this one's with 0 classes")
        for path in self.classifier_paths:
            parent, _, name = path.rpartition(".")
            fresh = nn.Linear(self._head_inputs[path], num_classes) if num_classes else nn.Identity()
            if num_classes:
                self._init_classifier(path, fresh)
                like = next(self.parameters())
                fresh.to(device=like.device, dtype=like.dtype)
            setattr(self.get_submodule(parent), name, fresh.train(self.training))
        self.num_classes = num_classes

    def init_modules(self, paths: set[str] | None = None) -> None:
        """Initialise the classifiers (those of `paths`) anew; the rest is initialised by torchvision's constructors."""
        for path in self.classifier_paths if paths is None else paths:
            self._init_classifier(path, self.get_submodule(path))

    def _init_classifier(self, path: str, linear: nn.Linear) -> None:
        linear.reset_parameters()
        if path in self.inits:
            self.inits[path](linear)

    # weights

    def fit_state_dict(self, state_dict: StateDict) -> StateDict:
        """Leave out auxiliary heads that the model was built without."""
        absent = tuple(f"{name}." for name in self.auxiliary_heads if getattr(self, name) is None)
        return {key: value for key, value in state_dict.items() if not key.startswith(absent)}

    def load_published(self, state_dict: StateDict, check: Check) -> None:
        """Load int8 weights into an int8 model.

        Args:
            state_dict: What `loading.read_state_dict` read, in any of the layouts that torch.ao has written.
            check: Called with the entries that the model has and those that the file has; raises where they differ.

        Raises:
            CheckpointError: The weights do not fit.
        """
        torch.backends.quantized.engine = self._engine  # it packs what is loaded; another model may have changed it
        expected, found = _unpack(self.state_dict()), _unpack(self._fit_int8(state_dict))
        found = {key: value.reshape(expected[key].shape)  # a scale is a number or a vector of one, by torch's version
                 if value.numel() == 1 and key in expected and expected[key].numel() == 1 else value
                 for key, value in found.items()}
        check(expected, found)
        wrong = [key for key, value in found.items()
                 if value.dtype != expected[key].dtype and (value.is_quantized or expected[key].is_quantized)]
        if wrong:
            raise CheckpointError(f"the weights do not fit the model '{_name(self)}': {wrong[0]} is "
                                  f"{found[wrong[0]].dtype}, not {expected[wrong[0]].dtype}")
        _load(self, found)

    def _fit_int8(self, state_dict: StateDict) -> StateDict:
        """`fit_state_dict`, and without a classifier where the model has none."""
        removed = tuple(f"{path}." for path in self.classifier_paths if self.num_classes == 0)
        return {key: value for key, value in self.fit_state_dict(state_dict).items() if not key.startswith(removed)}

    # int8

    def quantize(self, backend: str) -> None:
        """Turn the float model into an int8 one, in place, its ranges those that a random image shows.

        The engine of torch.backends.quantized becomes `backend`, as with torchvision.

        Args:
            backend: "fbgemm", "x86" or "onednn" (a scale per channel of the weights), or "qnnpack" (one per layer).

        Raises:
            ConfigError: This build of torch, or this processor, does not have the backend.
        """
        _check_backend(backend)
        torch.backends.quantized.engine = backend
        self.eval()
        weight = ao.default_weight_observer if backend == "qnnpack" else ao.default_per_channel_weight_observer
        self.qconfig = ao.QConfig(activation=ao.default_observer, weight=weight)
        self.fuse_model()
        with _without_warnings():
            ao.prepare(self, inplace=True)
        with torch.no_grad():
            self(torch.rand(1, 3, self.calibration_size, self.calibration_size))
        self._convert(backend)

    def _convert(self, backend: str) -> None:
        with _without_warnings():
            ao.convert(self, inplace=True)
        self.eval()
        self.is_quantized, self.backend = True, backend
        self._engine = torch.backends.quantized.engine

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> nn.Module:
        """Refuse to move an int8 model: its packed weights would stay behind."""
        if self.is_quantized:
            moved = fn(torch.empty(0))
            if moved.device.type != "cpu" or moved.dtype != torch.float32:
                raise ConfigError(f"'{_name(self)}' is int8: it runs on the CPU and keeps its own number format")
        return super()._apply(fn, *args, **kwargs)


def _name(model: nn.Module) -> str:
    return getattr(model, "architecture", None) or type(model).__name__


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence what a user can do nothing about.

    torch.ao's eager quantization is deprecated, but the published weights are its; and auxiliary heads and untrained
    models have observed nothing, so their ranges are arbitrary, as their weights are.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.ao.quantization is deprecated")
        warnings.filterwarnings("ignore", "must run observer")
        yield


def _check_backend(backend: str) -> None:
    supported = [engine for engine in torch.backends.quantized.supported_engines if engine != "none"]
    if backend not in supported:
        raise ConfigError(f"the quantization backend {backend!r} is not available here; supported: "
                          f"{', '.join(supported) or 'none'}")


def _unpack(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """An int8 state dict with tensors alone, "fc.weight" for "fc._packed_params...".

    This is the layout of torch 1.3's linear layers, which every version reads and which needs no version number; the
    second layout had "fc._packed_params.weight", the third has pairs at "fc._packed_params._packed_params".
    """
    unpacked = {}
    for key, value in state_dict.items():
        layer, packed, name = key.partition("._packed_params.")
        if isinstance(value, tuple) and len(value) == 2:
            unpacked[f"{layer}.weight"], unpacked[f"{layer}.bias"] = value
        elif name != "dtype":
            unpacked[f"{layer}.{name}" if packed else key] = value
    return {key: value for key, value in unpacked.items() if isinstance(value, Tensor)}


def _load(model: nn.Module, state_dict: Mapping[str, Any]) -> None:
    try:
        model.load_state_dict(state_dict)
    except (RuntimeError, KeyError, ValueError) as error:  # what the check cannot see: observers, ways of packing
        raise CheckpointError(f"the weights do not fit the model '{_name(model)}': {error}") from error


class QuantizedResNet(_Quantizable, tv.QuantizableResNet):
    """ResNet and ResNeXt (He et al., 2015, arXiv 1512.03385; Xie et al., 2016, arXiv 1611.05431).

    Args:
        block: `QuantizableBasicBlock` or `QuantizableBottleneck`.
        layers: Blocks per stage.
        zero_init_residual: Start with blocks that are identities.
        groups, width_per_group: Groups of the 3x3 convolutions, and channels of each in the first stage.
        replace_stride_with_dilation: For each of the last three stages, whether to dilate instead of stride.
    """

    def __init__(
        self, block: type[QuantizableBasicBlock | QuantizableBottleneck], layers: Sequence[int], /,
        num_classes: int = 1000, in_chans: int = 3, zero_init_residual: bool = False, groups: int = 1,
        width_per_group: int = 64, replace_stride_with_dilation: Sequence[bool] | None = None,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__(block, layers, num_classes or 1, zero_init_residual, groups, width_per_group,
                         replace_stride_with_dilation, norm_layer)
        self._adopt(num_classes, in_chans)

    def _pool(self, x: Tensor) -> Tensor:
        return torch.flatten(self.avgpool(x), 1)


class QuantizedShuffleNetV2(_Quantizable, tv.QuantizableShuffleNetV2):
    """ShuffleNet V2 (Ma et al., 2018, arXiv 1807.11164); `channels` of stem, stages and last convolution."""

    def __init__(self, channels: Sequence[int], /, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__([4, 8, 4], list(channels), num_classes or 1)
        self._adopt(num_classes, in_chans)

    def _forward_impl(self, x: Tensor) -> Tensor:
        x = self.conv5(self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x))))))
        return self.fc(self._pool(x))

    def _pool(self, x: Tensor) -> Tensor:
        return x.mean([2, 3], keepdim=True).flatten(1)  # without keepdim, torch fails for an int8 map of 1 x 1


class QuantizedMobileNetV2(_Quantizable, tv.QuantizableMobileNetV2):
    """MobileNetV2 (Sandler et al., 2018, arXiv 1801.04381), ReLU in place of ReLU6.

    Args:
        width_mult: Factor of all channels.
        inverted_residual_setting: (expansion, channels, blocks, stride) per stage, the paper's if None.
        round_nearest: Channels are rounded to a multiple of this.
    """

    classifier_path = "classifier.1"
    default_backend = "qnnpack"
    inits: ClassVar = {"classifier.1": init_normal}

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, width_mult: float = 1.0,
        inverted_residual_setting: list[list[int]] | None = None, round_nearest: int = 8,
        norm_layer: Callable[..., nn.Module] | None = None, dropout: float = 0.2,
    ) -> None:
        super().__init__(num_classes or 1, width_mult, inverted_residual_setting, round_nearest, MobileNetV2Block,
                         norm_layer, dropout)
        self._adopt(num_classes, in_chans)

    def _pool(self, x: Tensor) -> Tensor:
        return self.classifier[0](torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class QuantizedMobileNetV3(_Quantizable, tv.QuantizableMobileNetV3):
    """MobileNetV3-Large (Howard et al., 2019, arXiv 1905.02244).

    Its published weights are those of quantisation-aware training, before the conversion to int8: they are loaded into
    a model made ready for such training, which is then converted. Weights that were saved after the conversion load
    as those of the other models do.

    Args:
        width_mult: Factor of all channels.
        reduced_tail: Half the channels in the last stage.
        dilated: Dilate in the last stage instead of striding.
    """

    classifier_path = "classifier.3"
    default_backend = "qnnpack"
    inits: ClassVar = {"classifier.3": init_normal}

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, width_mult: float = 1.0, reduced_tail: bool = False,
        dilated: bool = False, norm_layer: Callable[..., nn.Module] | None = None, dropout: float = 0.2,
    ) -> None:
        blocks, last_chs = _mobilenet_v3_conf("mobilenet_v3_large", width_mult, reduced_tail, dilated)
        super().__init__(blocks, last_chs, num_classes or 1, MobileNetV3Block, norm_layer, dropout)
        self._adopt(num_classes, in_chans)
        self.num_features = self.classifier[0].in_features
        self._build_again = partial(
            type(self), num_classes, in_chans, width_mult, reduced_tail, dilated, norm_layer, dropout)

    def _pool(self, x: Tensor) -> Tensor:
        return self.classifier[:3](torch.flatten(self.avgpool(x), 1))

    def quantize(self, backend: str) -> None:
        """As of the others, by way of quantisation-aware training without training.

        The engine of torch.backends.quantized stays as it is, as with torchvision.
        """
        _check_backend(backend)
        self._prepare(backend)
        self._convert(backend)

    def _prepare(self, backend: str) -> None:
        self.train()
        self.fuse_model(is_qat=True)
        self.qconfig = ao.get_default_qat_qconfig(backend)
        with _without_warnings():
            ao.prepare_qat(self, inplace=True)

    def load_published(self, state_dict: StateDict, check: Check) -> None:
        """Load weights of quantisation-aware training, or int8 ones, into an int8 model; see `_Quantizable`."""
        if not any(key.endswith(".fake_quant_enabled") for key in state_dict):
            super().load_published(state_dict, check)
            return
        torch.backends.quantized.engine = self._engine
        trained = self._build_again()
        if self.num_classes == 0:
            trained.reset_classifier(0)
        trained._prepare(self.backend)
        weights = OrderedDict(self._fit_int8(state_dict))
        check(_without_observers(trained.state_dict()), _without_observers(weights))
        weights._metadata = getattr(state_dict, "_metadata", None)
        _load(trained, weights)
        trained._convert(self.backend)
        self._modules.update(trained._modules)


def _without_observers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What does not depend on torch's version: observers have changed their names and shapes, and it converts those."""
    parts = {"activation_post_process", "weight_fake_quant"}
    return {key: value for key, value in state_dict.items() if parts.isdisjoint(key.split("."))}


class QuantizedGoogLeNet(_Quantizable, tv.QuantizableGoogLeNet):
    """GoogLeNet (Szegedy et al., 2014, arXiv 1409.4842), with batch norm.

    Args:
        aux_logits: Build the two auxiliary classifiers, whose logits a model in training returns besides its own.
        transform_input: Take images normalised for ImageNet and normalise them as the weights' first owner did.
        init_weights: Draw convolutions from a truncated normal (slow) instead of torch's usual distribution.
        dropout_aux: As `dropout`, before the auxiliary classifiers.
    """

    auxiliary_heads = {"aux1": "aux1.fc2", "aux2": "aux2.fc2"}
    inits: ClassVar = dict.fromkeys(("fc", "aux1.fc2", "aux2.fc2"), partial(init_trunc_weight, std=0.01))

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, aux_logits: bool = False, transform_input: bool = False,
        init_weights: bool = True, dropout: float = 0.2, dropout_aux: float = 0.7,
    ) -> None:
        super().__init__(num_classes or 1, aux_logits, transform_input, init_weights, dropout=dropout,
                         dropout_aux=dropout_aux)
        self._adopt(num_classes, in_chans)


class QuantizedInception3(_Quantizable, tv.QuantizableInception3):
    """Inception v3 (Szegedy et al., 2015, arXiv 1512.00567).

    Arguments as of `QuantizedGoogLeNet`; there is one auxiliary classifier.
    """

    auxiliary_heads = {"AuxLogits": "AuxLogits.fc"}
    inits: ClassVar = {
        "fc": partial(init_trunc_weight, std=0.1), "AuxLogits.fc": partial(init_trunc_weight, std=0.001)}
    calibration_size = 75  # the smallest image that it takes

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, aux_logits: bool = False, transform_input: bool = False,
        init_weights: bool = True, dropout: float = 0.5,
    ) -> None:
        super().__init__(num_classes or 1, aux_logits, transform_input, init_weights=init_weights, dropout=dropout)
        self._adopt(num_classes, in_chans)


def _architecture(name: str, about: str, model_class: type[Any], *structure: Any, **presets: Any) -> None:
    """Register an architecture, which becomes a function of this module: float, or int8 for the backend."""

    def create(quantize: bool = False, backend: str | None = None, num_classes: int = 1000, **kwargs: Any) -> Any:
        parameters = inspect.signature(model_class.__init__).parameters.values()
        known = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]
        if unknown := [key for key in kwargs if key not in known]:
            raise ConfigError(f"'{model_class.__name__}' does not know the argument {', '.join(map(repr, unknown))}. "
                              f"It takes: {', '.join(sorted(known))}")
        backend = backend or model_class.default_backend
        if quantize:
            _check_backend(backend)  # before the time is spent
        model = model_class(*structure, num_classes=num_classes, **{**presets, **kwargs})
        if quantize:
            model.quantize(backend)
        return model

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{about}; int8 for {model_class.default_backend} unless asked otherwise."
    create.__annotations__["return"] = model_class
    globals()[name] = register_model(create)


_architecture("quantized_googlenet", "GoogLeNet (Inception v1)", QuantizedGoogLeNet)
_architecture("quantized_inception_v3", "Inception v3", QuantizedInception3)
_architecture("quantized_mobilenet_v2", "MobileNetV2", QuantizedMobileNetV2)
_architecture("quantized_mobilenet_v3_large", "MobileNetV3-Large", QuantizedMobileNetV3)
_architecture("quantized_resnet18", "ResNet-18", QuantizedResNet, QuantizableBasicBlock, (2, 2, 2, 2))
_architecture("quantized_resnet50", "ResNet-50, strides in the 3x3 convolutions (V1.5)", QuantizedResNet,
              QuantizableBottleneck, (3, 4, 6, 3))
for _groups, _width in ((32, 8), (64, 4)):
    _architecture(f"quantized_resnext101_{_groups}x{_width}d", f"ResNeXt-101, {_groups} groups of {_width} channels",
                  QuantizedResNet, QuantizableBottleneck, (3, 4, 23, 3), groups=_groups, width_per_group=_width)
for _factor, _channels in (("0.5", (24, 48, 96, 192, 1024)), ("1.0", (24, 116, 232, 464, 1024)),
                           ("1.5", (24, 176, 352, 704, 1024)), ("2.0", (24, 244, 488, 976, 2048))):
    _architecture(f"quantized_shufflenet_v2_x{_factor.replace('.', '_')}",
                  f"ShuffleNet V2 of {_factor} times the base width", QuantizedShuffleNetV2, _channels)
