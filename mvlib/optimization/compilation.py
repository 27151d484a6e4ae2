"""torch.compile for inference: when it pays, and without surprises."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CompiledForward", "compiler_missing", "estimated_seconds", "worth_compiling"]

_SECONDS_BASE, _SECONDS_A_MODULE = 8.0, 0.1  # resnet50 8-12, convnext_tiny 10-13, vit_small 9-20, efficientnet_b0 18-32
_SAVING = {"cpu": 0.05, "cuda": 0.3}  # share of a pass that compilation saves after everything else: 0 to 0.1 on a CPU


def compiler_missing(device: torch.device) -> str | None:
    """Why torch.compile cannot generate code for the device; None where it can."""
    if device.type == "cpu":
        wanted = os.environ.get("CXX") or "g++"
        candidates = [wanted] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
        if not any(shutil.which(name) for name in candidates):
            return f"there is no C++ compiler ({wanted})"
        return None
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            return "there is no Triton"
        if torch.cuda.get_device_capability(device) < (7, 0):
            return "Triton needs a GPU of compute capability 7.0"
    return None


def estimated_seconds(model: nn.Module) -> float:
    """Seconds that compiling takes, roughly: it grows with the number of layers."""
    leaves = sum(1 for module in model.modules() if not any(True for _ in module.children()))
    return _SECONDS_BASE + _SECONDS_A_MODULE * leaves


def worth_compiling(seconds_per_image: float, work: int, cost: float, device_type: str = "cpu") -> bool:
    """Whether `work` images at this pace save more time than compiling costs.

    Args:
        seconds_per_image: Of the model as it is.
        work: Images to come.
        cost: Seconds that compiling takes.
    """
    return seconds_per_image * work * _SAVING.get(device_type, _SAVING["cpu"]) > cost


class CompiledForward:
    """A model compiled for one image size: any batch size from 2 where the example has so many images, else that of 1.

    To be called in inference mode with what `fits`; nothing is ever compiled again on the way.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.function: Callable[[Tensor], Any] | None = None
        self.shape: tuple[int, ...] = ()
        self.any_batch = False

    def compile(self, images: Tensor) -> float:
        """Compile for images like these, in inference mode. Returns the seconds that it took.

        Raises:
            Exception: Whatever the compiler raises.
        """
        started = time.perf_counter()
        self.any_batch, self.shape = len(images) > 1, tuple(images.shape)
        images = images.clone(memory_format=torch.preserve_format)  # an inference tensor, to be marked
        if self.any_batch:
            torch._dynamo.mark_dynamic(images, 0)
        torch.compiler.reset()  # models share their forward functions, and torch limits how often one is compiled
        function = torch.compile(self.model, options={"freezing": True}, dynamic=None if self.any_batch else False)
        function(images)
        self.function = function
        return time.perf_counter() - started

    def __deepcopy__(self, memo: dict) -> CompiledForward:
        """Itself: compiled code cannot be copied, and nothing in it changes."""
        return self

    def fits(self, images: Tensor) -> bool:
        if self.function is None or images.shape[1:] != self.shape[1:]:
            return False
        return images.shape[0] > 1 if self.any_batch else images.shape[0] == 1

    def __call__(self, images: Tensor) -> Any:
        """Only for images that fit."""
        return self.function(_as_inference_tensor(images))


def _as_inference_tensor(images: Tensor) -> Tensor:
    """torch compiles again for tensors from outside of inference mode; a copy costs less."""
    return images if images.is_inference() else images.clone(memory_format=torch.preserve_format)
