"""An average of the weights, checkpoints of a run, a run that goes on from them."""

from argparse import Namespace
from pathlib import Path

import timm
import torch
from common import fill, images
from timm.models import load_checkpoint, load_state_dict, model_parameters, resume_checkpoint, safe_model_name
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler
from timm.utils import CheckpointSaver, ModelEma, ModelEmaV2, adaptive_clip_grad, get_state_dict

here = Path("ema_checkpoint")
here.mkdir()
args = Namespace(opt="momentum", lr=0.1, momentum=0.9, weight_decay=1e-4, sched="step", epochs=4, decay_epochs=1,
                 decay_rate=0.5, warmup_epochs=0, model="resnet10t")
x, target = images(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])


def parts():
    model = fill(timm.create_model(args.model, num_classes=4)).train()
    optimizer = create_optimizer_v2(model, args.opt, lr=args.lr, weight_decay=args.weight_decay, momentum=0.9)
    return model, optimizer, create_scheduler(args, optimizer)[0], ModelEmaV2(model, decay=0.5)


def train(model, optimizer, scheduler, ema, epochs):
    losses = []
    for epoch in epochs:
        loss = torch.nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        adaptive_clip_grad(model_parameters(model, exclude_head=True), 0.01)
        optimizer.step()
        ema.update(model)
        scheduler.step(epoch + 1)
        losses.append(loss.item())
    return losses


first = parts()
losses = train(*first, range(2))
saver = CheckpointSaver(first[0], first[1], args=args, model_ema=first[3], checkpoint_dir=str(here), max_history=2)
saver.save_checkpoint(1, metric=10.0)
straight = losses + train(*first, range(2, 4))

second = parts()
epoch = resume_checkpoint(second[0], str(here / "last.pth.tar"), second[1], log_info=False)
load_checkpoint(second[3].module, str(here / "last.pth.tar"), use_ema=True)
second[2].step(epoch)
resumed = train(*second, range(epoch, 4))

averaged = timm.create_model(args.model, num_classes=4, checkpoint_path=str(here / "last.pth.tar")).eval()
old = ModelEma(first[0], decay=0.9)
old.update(first[0])
saved = torch.load(here / "last.pth.tar", weights_only=False)
with torch.no_grad():
    RESULT = {
        "straight": torch.tensor(straight), "resumed": torch.tensor(resumed), "epoch": epoch,
        "averaged": averaged(x), "keys": sorted(saved), "version": saved["version"], "opt": saved["args"].opt,
        "ema": second[3].module.state_dict(), "old": old.ema.eval()(x), "momenta": len(saved["optimizer"]["state"]),
        "plain": dict(load_state_dict(str(here / "last.pth.tar"), use_ema=False)),
        "name": safe_model_name("hf_hub:someone/a model"), "state": len(get_state_dict(first[0])),
    }
assert torch.allclose(RESULT["resumed"], RESULT["straight"][2:], rtol=1e-5)
