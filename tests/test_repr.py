"""What data sets, loaders, schedulers, transforms and weights say of themselves: a few lines with what matters."""

import pytest
import torch
from PIL import Image

import mvlib
from mvlib import data
from mvlib.data.pil_transform import PILTransform
from mvlib.data.readers import StreamReader
from mvlib.data.torch_loader import PrefetchLoader
from mvlib.models import ResNet50_Weights
from mvlib.scheduler import CosineLRScheduler, PlateauLRScheduler, WSDLRScheduler
from mvlib.scheduler.scheduler import Scheduler


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for number in range(3):
            Image.new("RGB", (40, 30)).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def optimizer():
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (0.5, 0.05)]
    return torch.optim.SGD(groups, lr=0.1)


def test_data_sets(folder):
    dataset = data.ImageDataset(folder)
    assert repr(dataset) == f"ImageDataset(6 images in 2 classes, {folder})"
    assert repr(data.AugMixDataset(dataset, 3)) == f"AugMixDataset({dataset}, num_splits=3)"

    class Stream(StreamReader):
        name = "shards"

    assert repr(data.IterableImageDataset(reader=Stream())) == "IterableImageDataset(a stream of images, shards)"
    assert repr(data.IterableImageDataset(reader=Stream(), num_samples=7)) == "IterableImageDataset(7 images, shards)"


def test_loaders(folder):
    dataset = data.ImageDataset(folder)
    loader = data.create_loader(dataset, (3, 32, 48), 4, num_workers=0, device="cpu")
    assert repr(loader) == (f"Loader(2 batches, batch_size=4, input_size=(3, 32, 48), device=cpu, num_workers=0,\n"
                            f"    ImageDataset(6 images in 2 classes, {folder}))")
    mixup = data.Mixup(mixup_alpha=0.2, num_classes=2)
    loader = data.create_loader(dataset, 32, 2, is_training=True, num_workers=0, device="cpu", mixup=mixup,
                                input_size_choices=[32, 48])
    first, *_, last = repr(loader).splitlines()
    assert "input_size=(3, 32, 32) or (3, 48, 48)" in first and last == f"    {mixup})"
    loader = PrefetchLoader(torch.utils.data.DataLoader(dataset, 3), device="cpu")
    assert repr(loader).startswith("PrefetchLoader(2 batches, batch_size=3, device=cpu, num_workers=0,\n    ImageData")
    stream = data.IterableImageDataset(reader=type("Stream", (StreamReader,), {"name": "shards"})())
    assert repr(data.create_loader(stream, 32, 2, num_workers=0, device="cpu")).startswith(
        "Loader(a stream of batches, batch_size=2")


def test_schedulers(optimizer):
    scheduler = CosineLRScheduler(optimizer, t_initial=100, warmup_t=5, warmup_lr_init=1e-5)
    start = "CosineLRScheduler(t_initial=100, warmup_t=5, warmup_lr_init=1e-05, in epochs, base lr 0.05 to 0.5, now "
    assert repr(scheduler) == f"{start}1e-05)"
    scheduler.step(5)
    assert repr(scheduler) == f"{start}0.04969 to 0.4969 at epoch 5)"
    assert repr(scheduler.schedule) == "Cosine(t_initial=100, warmup_t=5, warmup_lr_init=1e-05)"
    noisy = CosineLRScheduler(optimizer, t_initial=9, noise_range_t=3, noise_pct=0.5, t_in_epochs=False)
    assert repr(noisy).startswith("CosineLRScheduler(t_initial=9, noise_range_t=3, noise_pct=0.5")
    assert ", in updates, " in repr(noisy)
    assert repr(PlateauLRScheduler(optimizer, decay_rate=0.2, warmup_t=3)).startswith(
        "PlateauLRScheduler(decay_rate=0.2, patience_t=10, mode=max, warmup_t=3, in epochs, base lr")
    assert repr(WSDLRScheduler(optimizer, t_initial=9, decay_t=2)).startswith("WSDLRScheduler(t_initial=9, decay_t=2")

    class Own(Scheduler):
        def _get_lr(self, t):
            return self.base_values

    assert repr(Own(optimizer, "lr")).startswith("Own(in epochs, base lr ")


def test_weights():
    config = mvlib.get_pretrained_cfg("resnet50.imagenet1k_v2")
    facts = ("(resnet50.imagenet1k_v2, input_size=(3, 224, 224), num_classes=1000, params=25.56 M, file=97.8 MiB, "
             "metrics=ImageNet-1K acc@1 80.858 acc@5 95.434, license=bsd-3-clause, "
             "source=https://download.pytorch.org/models/resnet50-11ad3fa6.pth)")
    assert repr(config) == f"WeightsConfig{facts}"
    assert repr(ResNet50_Weights.IMAGENET1K_V2.value) == f"Weights{facts}"
    assert repr(ResNet50_Weights.IMAGENET1K_V2) == "ResNet50_Weights.IMAGENET1K_V2"  # as torchvision's, and eval's
    assert repr(mvlib.WeightsConfig()) == "WeightsConfig(None, input_size=(3, 224, 224), num_classes=1000, source=none)"


@pytest.mark.parametrize("arguments", [{}, {"backend": "fast"}, {"is_training": True}, {"naflex": True}], ids=str)
def test_transforms(arguments):
    shown = repr(mvlib.create_transform(224, **arguments))
    assert "0.485" in shown and "0.229" in shown and "bilinear" in shown and " object at " not in shown
    assert "224" in shown or "naflex" in arguments
    assert len(shown.splitlines()) < 10


def test_the_transform_without_torch():
    shown = repr(PILTransform(mvlib.resolve_data_config({"input_size": (3, 224, 200)})))
    assert "crop=(224, 200)" in shown and "bicubic" in shown and "object at" not in shown
