"""How far do frozen features go? A linear probe beside nearest neighbours, on features that are computed once.

    python examples/linear_probe.py                                    # ten handwritten digits, half a minute
    python examples/linear_probe.py DATA --model vit_small_patch14_dinov2.lvd142m --img-size 224

DATA has train/ and validation/ with a folder of pictures a class. The probe is a logistic regression, fitted by L-BFGS
on standardized features; neighbours vote by the cosine, as in DINO's evaluation (Caron et al., arXiv 2104.14294).
"""

import argparse
from pathlib import Path

import torch
from demo_data import run, write_digits
from torch import Tensor, nn
from torch.nn import functional as F

import mvlib


@torch.no_grad()
def features_of(model: nn.Module, data: Path, split: str, config: dict) -> tuple[Tensor, Tensor, list[str]]:
    """Pooled features (pictures, num_features), labels (pictures,) and the names of the classes."""
    dataset = mvlib.create_dataset("", data, split=split)
    loader = mvlib.create_loader(dataset, batch_size=32, num_workers=0, **config)
    features, labels = zip(*((model(images), targets) for images, targets in loader))
    return torch.cat(features), torch.cat(labels), dataset.classes


def fit_probe(features: Tensor, labels: Tensor, classes: int, decay: float, steps: int = 100) -> nn.Linear:
    """A logistic regression: the least mean cross-entropy plus `decay` times half the squared weights."""
    probe = nn.Linear(features.shape[1], classes, device=features.device)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(probe(features), labels) + decay / 2 * probe.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return probe


def vote(features: Tensor, labels: Tensor, queries: Tensor, classes: int, neighbours: int) -> Tensor:
    """The class of each query by its nearest neighbours, a vote of each weighing exp(cosine / 0.07)."""
    cosine, nearest = (F.normalize(queries) @ F.normalize(features).T).topk(min(neighbours, len(features)))
    votes = F.one_hot(labels[nearest], classes) * (cosine / 0.07).exp()[..., None]
    return votes.sum(1).argmax(1)


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="folder with train/ and validation/")
    parser.add_argument("--model", default="tf_efficientnet_lite0.pip_in1k", help="a name with weights")
    parser.add_argument("--img-size", type=int, default=64)
    parser.add_argument("--neighbours", type=int, default=10)
    parser.add_argument("--decay", type=float, default=1e-3, help="weight decay of the probe")
    args = parser.parse_args(argv)
    data = args.data or write_digits(Path("output/examples/digits"))
    model = mvlib.create_model(args.model, num_classes=0).eval()  # features in the place of logits
    config = mvlib.resolve_data_config({"input_size": (3, args.img_size, args.img_size)}, model=model)
    model, _ = mvlib.optimize(model, torch.zeros(32, *config["input_size"]))
    train, labels, names = features_of(model, data, "train", config)
    queries, truth, _ = features_of(model, data, "validation", config)
    mean, std = train.mean(0), train.std(0) + 1e-6
    probe = fit_probe((train - mean) / std, labels, len(names), args.decay)
    found = {"linear probe": probe((queries - mean) / std).argmax(1),
             f"{args.neighbours} neighbours": vote(train, labels, queries, len(names), args.neighbours)}
    accuracies = {name: 100 * (classes == truth).float().mean().item() for name, classes in found.items()}
    for name, accuracy in accuracies.items():
        print(f"{name:16} {accuracy:5.1f}% of {len(truth)} pictures in {len(names)} classes")
    return accuracies


if __name__ == "__main__":
    run(main)
