"""Models without values, which take a third of the time to build."""

import contextlib
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

_RANDOM = frozenset({"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_",
                     "xavier_normal_", "orthogonal_", "erfinv_"})
_FILLING = frozenset({"constant_", "zeros_", "ones_", "dirac_", "fill_", "zero_", "clamp_", "mul_", "add_"})


class _LeaveValues(TorchFunctionMode):
    """Random values are written to no tensor, and others not to one that has no memory for them."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _RANDOM or name in _FILLING:
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, torch.Tensor) and (target.is_meta or name in _RANDOM):
                return target
        return func(*args, **kwargs)


@contextlib.contextmanager
def skeletons():
    """What is built within lies on the meta device: names, shapes and settings."""
    with torch.device("meta"), _LeaveValues():
        yield


@contextlib.contextmanager
def uninitialised():
    """What is built within has no random values yet; buffers that are computed are there."""
    # torch draws truncated normals again and again until all are in bounds.
    with mock.patch.object(torch.nn.init, "_no_grad_trunc_normal_", lambda tensor, *args, **kwargs: tensor), \
            _LeaveValues():
        yield
