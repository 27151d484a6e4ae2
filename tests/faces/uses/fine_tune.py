"""A fine-tuning script with timm's parts: data, Mixup, loss, optimizer, schedule, EMA, checkpoints, a summary."""

import csv
from collections import OrderedDict
from pathlib import Path

import timm
import torch
from common import fill, image_folder
from timm.data import Mixup, create_dataset, create_loader, resolve_data_config
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, create_scheduler_v2
from timm.utils import (
    AverageMeter,
    CheckpointSaver,
    ModelEmaV3,
    NativeScaler,
    accuracy,
    dispatch_clip_grad,
    get_outdir,
    random_seed,
    update_summary,
)

EPOCHS = 2
here = Path("fine_tune")
folder = image_folder(here / "images")

random_seed(42, 0)
model = fill(timm.create_model("resnet10t", pretrained=False, num_classes=3, drop_rate=0.0, checkpoint_path=""))
model.double()  # Adam makes steps of the last bits of gradients that are almost 0: within 1e-9, in float32 within 1e-2
config = resolve_data_config(dict(input_size=None, img_size=32), model=model, verbose=False)
loaders = {
    split: create_loader(create_dataset("", root=folder, split=split), input_size=config["input_size"], batch_size=4,
                         is_training=split == "train", mean=config["mean"], std=config["std"], num_workers=0,
                         use_prefetcher=False, no_aug=split == "train", crop_pct=1.0,
                         interpolation=config["interpolation"], device=torch.device("cpu"))
    for split in ("train", "val")
}
assert isinstance(loaders["train"], torch.utils.data.DataLoader)
mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=3)
optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.75)
scheduler, epochs = create_scheduler_v2(optimizer, sched="cosine", num_epochs=EPOCHS, warmup_epochs=1, warmup_lr=1e-5,
                                        min_lr=1e-6, step_on_epochs=False, updates_per_epoch=len(loaders["train"]))
assert isinstance(scheduler, CosineLRScheduler)
ema = ModelEmaV3(model, decay=0.9, use_warmup=True)
scaler = NativeScaler("cpu")
train_loss, val_loss = SoftTargetCrossEntropy(), LabelSmoothingCrossEntropy(0.1)
out = get_outdir(str(here), "runs", "first")
saver = CheckpointSaver(model, optimizer, args=None, model_ema=ema, amp_scaler=scaler, checkpoint_dir=out,
                        recovery_dir=out, decreasing=False, max_history=1)

rates, losses, step = [], [], 0
for epoch in range(EPOCHS):
    model.train()
    meter = AverageMeter()
    order = [loaders["train"].dataset[i] for i in range(8)]  # the sampler's order is torch's own
    for start in (0, 4):
        x = torch.stack([image for image, _ in order[start:start + 4]])
        x, target = mixup(x.double(), torch.tensor([label for _, label in order[start:start + 4]]))
        loss = train_loss(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        dispatch_clip_grad(model.parameters(), 1.0, mode="norm")
        optimizer.step()
        step += 1
        ema.update(model, step=step)
        meter.update(loss.item(), len(x))
        scheduler.step_update(num_updates=step, metric=meter.avg)
        rates.append([group["lr"] for group in optimizer.param_groups])
    losses.append(meter.avg)

    ema.module.eval()
    top1 = AverageMeter()
    with torch.no_grad():
        for x, target in loaders["val"]:
            logits = ema.module(x.double())
            top1.update(accuracy(logits, target, topk=(1, 3))[0].item(), len(x))
    scheduler.step(epoch + 1, top1.avg)
    update_summary(epoch, OrderedDict(loss=meter.avg), OrderedDict(top1=top1.avg), filename=f"{out}/summary.csv",
                   write_header=epoch == 0)
    best, best_epoch = saver.save_checkpoint(epoch, metric=top1.avg)

saved = torch.load(f"{out}/model_best.pth.tar", weights_only=False)
with open(f"{out}/summary.csv") as file:
    summary = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
RESULT = {
    "config": {key: config[key] for key in ("input_size", "mean", "std", "interpolation", "crop_pct")},
    "rates": torch.tensor(rates), "losses": torch.tensor(losses), "epochs": epochs, "logits": logits,
    "best": [best, best_epoch], "summary": torch.tensor([list(row.values()) for row in summary]),
    "columns": list(summary[0]), "saved": sorted(saved), "arch": saved["arch"],
    "state": dict(saved["state_dict_ema"]), "files": sorted(path.name for path in Path(out).iterdir()),
    "samples": loaders["val"].dataset.filenames(basename=True),
}
