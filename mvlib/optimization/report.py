"""What was done to a model, and why the rest was not."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Report", "Step"]


@dataclass(frozen=True)
class Step:
    """One way of making a model faster.

    Attributes:
        name: "memory", "channels_last", "reparameterize", "fold", "convert", "attention", "prepack", "compile",
            "engine".
        done: Whether it was taken.
        note: What was done, or why it was left out.
    """

    name: str
    done: bool
    note: str


@dataclass
class Report:
    """What `mvlib.optimize` did. `str(report)` is a table.

    Attributes:
        device: "cpu", "cuda:0", ...
        dtype: The type that the model computes in: "float32", "bfloat16", "float16".
        steps: All steps, in order.
        difference: Largest difference of an output from that of the model in eager float32, as a part of the largest
            output, on the first images of the example.
        compiled: Whether torch.compile was used.
        backend: What runs the model: "torch", "openvino", "onnxruntime".
    """

    device: str
    dtype: str
    steps: list[Step] = field(default_factory=list)
    difference: float = 0.0
    compiled: bool = False
    backend: str = "torch"

    def add(self, name: str, done: bool, note: str) -> None:
        self.steps.append(Step(name, done, note))

    def __getitem__(self, name: str) -> Step:
        """The step of that name.

        Raises:
            KeyError: It was not considered.
        """
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    def __str__(self) -> str:
        width = max((len(step.name) for step in self.steps), default=0)
        lines = [f"{'+' if step.done else '-'} {step.name.ljust(width)}  {step.note}" for step in self.steps]
        by = "" if self.backend == "torch" else f", {self.backend}"
        return "\n".join([f"{self.dtype} on {self.device}{by}: outputs differ by {self.difference:.1e} of the largest",
                          *lines])
