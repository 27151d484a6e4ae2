"""Fine-tune ImageNet weights on your own classes, go on after a kill, export, and check what the export answers.

    python examples/finetune_resume_export.py                          # crops of four photographs, under a minute
    python examples/finetune_resume_export.py DATA --img-size 224 --epochs 10 --format onnx
    python examples/finetune_resume_export.py --kill-after 5           # kill -9; the same without it then goes on

DATA has train/ and validation/ with a folder of pictures a class. Started again, the same command goes on from its last
checkpoint to the same bits as a run that nobody killed. The last line compares torch's answers with the export's.
"""

import argparse
import os
import signal
from pathlib import Path

import torch
from demo_data import run, write_textures
from torch.nn.functional import cross_entropy

import mvlib
from mvlib.engines import open_engine, read_export
from mvlib.train import StepOptions, TrainState, read_checkpoint, train_one_epoch, validate, write_checkpoint


def train(args: argparse.Namespace) -> tuple[TrainState, mvlib.data.Loader]:
    """The trained state, and the loader of the validation pictures."""
    data = args.data or write_textures(args.output / "data")
    train_set = mvlib.create_dataset("", data, split="train", is_training=True)
    eval_set = mvlib.create_dataset("", data, split="validation", class_map=train_set.class_to_idx)
    torch.manual_seed(0)  # of the new classifier
    model = mvlib.create_model(args.model, num_classes=len(train_set.classes), pretrained_cfg_overlay={
        "input_size": (3, args.img_size, args.img_size), "label_names": train_set.classes})
    config = mvlib.resolve_data_config(model=model)
    loader = mvlib.create_loader(train_set, batch_size=args.batch_size, is_training=True, num_workers=0, **config)
    eval_loader = mvlib.create_loader(eval_set, batch_size=args.batch_size, num_workers=0, **config)
    optimizer = mvlib.create_optimizer_v2(model, opt="adamw", lr=args.lr, weight_decay=0.05)
    scheduler, _ = mvlib.create_scheduler_v2(optimizer, num_epochs=args.epochs, updates_per_epoch=len(loader))
    state = TrainState(model, optimizer, scheduler)
    if (checkpoint := args.output / "last.pth.tar").exists():
        state.load_state_dict(read_checkpoint(checkpoint))
        print(f"going on in epoch {state.epoch}, from batch {state.batch}")

    def on_update(state: TrainState, progress: object) -> None:
        write_checkpoint(state.state_dict(), checkpoint)  # whole or not at all, whenever the process dies
        if state.updates == args.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    args.output.mkdir(parents=True, exist_ok=True)
    while state.epoch < args.epochs:
        loss = train_one_epoch(state, loader, cross_entropy, StepOptions(clip_grad=1.0), on_update)["loss"]
        print(f"epoch {state.epoch}: loss {loss:.3f}, top-1 {validate(model, eval_loader)['top1']:.1f}%")
        scheduler.step(state.epoch)
        write_checkpoint(state.state_dict(), checkpoint)
    return state, eval_loader


def main(argv: list[str] | None = None) -> TrainState:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="folder with train/ and validation/")
    parser.add_argument("--output", type=Path, default=Path("output/examples/finetune"))
    parser.add_argument("--model", default="tf_efficientnet_lite0.pip_in1k", help="a name with weights")
    parser.add_argument("--img-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--format", default="openvino", choices=("openvino", "onnx"))
    parser.add_argument("--kill-after", type=int, metavar="N", help="kill this process after N updates")
    args = parser.parse_args(argv)
    state, loader = train(args)
    print(mvlib.export(state.model.eval(), args.output / args.format, format=args.format, force=True))
    engine, (images, _) = open_engine(read_export(args.output / args.format)), next(iter(loader))
    ours, theirs = (logits.softmax(-1) for logits in (state.model(images), torch.from_numpy(engine(images.numpy())[0])))
    print(f"torch and {args.format} agree on {(ours.argmax(1) == theirs.argmax(1)).float().mean():.1%} of pictures; "
          f"probabilities differ by {(ours - theirs).abs().max():.1e} at most")
    return state


if __name__ == "__main__":
    run(main)
