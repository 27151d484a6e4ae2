"""Distillation: a loop of one's own, and timm's task for it."""

import timm
import torch
from common import fill, images
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.task import LogitDistillationTask
from timm.utils import unwrap_model
from torch.nn.functional import kl_div, log_softmax

x, target = images(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
teacher = fill(timm.create_model("resnet18", num_classes=4)).eval().requires_grad_(False)

student = fill(timm.create_model("mobilenetv3_small_050", num_classes=4, drop_rate=0.0)).train()
optimizer = create_optimizer_v2(student, "sgd", lr=0.05, momentum=0.9, weight_decay=1e-4)
losses = []
for _ in range(3):
    logits = student(x)
    soft = kl_div(log_softmax(logits / 3, 1), log_softmax(teacher(x) / 3, 1), reduction="batchmean", log_target=True)
    loss = 0.5 * LabelSmoothingCrossEntropy(0.1)(logits, target) + 0.5 * 9 * soft
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

student = fill(timm.create_model("resnet18", num_classes=4))
task = LogitDistillationTask(student, teacher, criterion=torch.nn.CrossEntropyLoss(), distill_loss_weight=0.5,
                             temperature=2.0, verbose=False)
out = task(x, target)
out["loss"].backward()
RESULT = {"losses": torch.tensor(losses), "task": {key: value.detach() for key, value in out.items()},
          "gradient": student.conv1.weight.grad, "unwrapped": unwrap_model(task) is not None}
