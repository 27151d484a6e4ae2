"""What the scripts of clients share: a case's weights come from another run's files, its own and its answers go out.

    python [-m mvlib.timm] use_CLIENT.py WRITE [READ]

builds each case (from random weights, or from what a run before has left in READ), and leaves in WRITE its answers and
what the client saves of it. Which timm answered is said by how the script was started.
"""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn


def _save_state(model: nn.Module, folder: Path) -> None:
    torch.save(model.state_dict(), folder / "state.pt")


@dataclass(frozen=True)
class Case:
    """`answers` gives tensors and plain values, in dictionaries and sequences of any depth; `save` and `load` are the
    client's own way where it has one, a state dict that must fit exactly otherwise."""

    build: Callable[[], Any]
    answers: Callable[[Any], Any]
    save: Callable[[Any, Path], None] = _save_state
    load: Callable[[Path], Any] | None = None

    def loaded(self, folder: Path) -> Any:
        if self.load is not None:
            return self.load(folder)
        model = self.build()
        model.load_state_dict(torch.load(folder / "state.pt", weights_only=True))
        return model


@torch.no_grad()
def shake(model: nn.Module) -> nn.Module:
    """Nothing stays at the zeros and ones that a fresh model has: a part that is left out would not be seen."""
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.02)
    for module in model.modules():
        if isinstance(getattr(module, "running_var", None), torch.Tensor):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def images(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _seed() -> None:
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


def play(client: str, cases: dict[str, Case]) -> None:
    """Run by a client's script; a case that fails says so in the place of its answers."""
    import timm

    write, read = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None
    torch.set_num_threads(1)
    answers: dict[str, Any] = {}
    for name, case in cases.items():
        folder = write / name
        folder.mkdir(parents=True)
        _seed()
        try:
            model = shake(case.build()) if read is None else case.loaded(read / name)
            model.eval()
            case.save(model, folder)
            _seed()
            answers[name] = case.answers(model)
        except Exception:
            answers[name] = traceback.format_exc()
    module = sys.modules[client]
    torch.save({"timm": timm.__name__, "version": getattr(module, "__version__", ""), "answers": answers},
               write / "answers.pt")
