"""Teach a small network by a large one: the same student alone, and by the labels and a teacher's logits.

    python examples/distillation.py                                    # crops of four photographs, under a minute
    python examples/distillation.py DATA --teacher RUN/last.pth.tar --student resnet18 --img-size 224 --epochs 50

DATA has train/ and validation/ with a folder of pictures a class. Without --teacher (a checkpoint of `mvlib train` or
of finetune_resume_export.py), it is ImageNet weights with a new classifier, trained first. `mvlib train --teacher` does
the same as a command. Soft targets: Hinton et al., arXiv 1503.02531.
"""

import argparse
from pathlib import Path

import torch
from demo_data import run, write_textures
from torch import nn
from torch.nn.functional import cross_entropy

import mvlib
from mvlib.loss import DistillationLoss
from mvlib.loss.distillation import distill
from mvlib.train import StepOptions, TrainState, read_checkpoint, train_one_epoch, validate


def train(model: nn.Module, loader: mvlib.data.Loader, epochs: int, lr: float, teacher: nn.Module | None = None,
          temperature: float = 2.0) -> None:
    """Train what of the model is not frozen, by labels, or by labels and a teacher alike."""
    loss = cross_entropy if teacher is None else DistillationLoss(cross_entropy, alpha=0.5, temperature=temperature)
    optimizer = mvlib.create_optimizer_v2(model, opt="adamw", lr=lr, weight_decay=0.05)
    scheduler, _ = mvlib.create_scheduler_v2(optimizer, num_epochs=epochs, updates_per_epoch=len(loader))
    state = TrainState(model, optimizer, scheduler)
    while state.epoch < epochs:
        train_one_epoch(state, loader, loss, StepOptions(teacher=teacher))
        scheduler.step(state.epoch)


@torch.no_grad()
def distance(student: nn.Module, teacher: nn.Module, loader: mvlib.data.Loader) -> float:
    """Mean Kullback-Leibler divergence of a student's probabilities from its teacher's, in nats."""
    ours, theirs = (torch.cat([model.eval()(images) for images, _ in loader]) for model in (student, teacher))
    return distill(ours, theirs).item()


def main(argv: list[str] | None = None) -> dict[str, tuple[float, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="folder with train/ and validation/")
    parser.add_argument("--teacher", type=Path, help="training checkpoint")
    parser.add_argument("--student", default="test_resnet")
    parser.add_argument("--img-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--lr", type=float, default=2e-3)
    args = parser.parse_args(argv)
    data = args.data or write_textures(Path("output/examples/distillation"), validation=40)
    train_set = mvlib.create_dataset("", data, split="train", is_training=True)
    eval_set = mvlib.create_dataset("", data, split="validation", class_map=train_set.class_to_idx)
    name = read_checkpoint(args.teacher)["arch"] if args.teacher else "tf_efficientnet_lite0.pip_in1k"
    torch.manual_seed(0)  # of its new classifier
    teacher = mvlib.create_model(name, checkpoint_path=args.teacher, num_classes=len(train_set.classes))
    config = mvlib.resolve_data_config({"input_size": (3, args.img_size, args.img_size)}, model=teacher)
    loader = mvlib.create_loader(train_set, batch_size=16, is_training=True, num_workers=0, **config)
    eval_loader = mvlib.create_loader(eval_set, batch_size=32, num_workers=0, **config)
    if not args.teacher:
        teacher.requires_grad_(False)
        teacher.get_classifier().requires_grad_(True)
        train(teacher, loader, epochs=3, lr=1e-2)
    teacher.eval().requires_grad_(False)
    found = {"teacher": (validate(teacher, eval_loader)["top1"], 0.0)}
    for name, advice in (("student alone", None), ("student, taught", teacher)):
        torch.manual_seed(0)  # the same beginning
        student = mvlib.create_model(args.student, num_classes=len(train_set.classes), pretrained=False)
        train(student, loader, args.epochs, args.lr, advice)
        found[name] = (validate(student, eval_loader)["top1"], distance(student, teacher, eval_loader))
    for name, (accuracy, divergence) in found.items():
        print(f"{name:16} top-1 {accuracy:5.1f}%, divergence from the teacher {divergence:.3f}")
    return found


if __name__ == "__main__":
    run(main)
