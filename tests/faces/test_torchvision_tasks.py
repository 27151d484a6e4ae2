"""torchvision's models for detection, segmentation, videos and optical flow: its answers, our weights and errors."""

import hashlib
import inspect
import json
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
import torchvision
from mvlib.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone
from torch import nn

import mvlib
from mvlib import registry
from mvlib.cli import main
from mvlib.errors import CheckpointError, ChecksumError, ConfigError, UnknownNameError
from mvlib.models import detection, optical_flow, segmentation, video

THEIRS = torchvision.models
PACKAGES = {"detection": 12, "segmentation": 6, "video": 9, "optical_flow": 2}
BUILDERS = [(package, name) for package in PACKAGES for name in THEIRS.list_models(module=getattr(THEIRS, package))]
each = pytest.mark.parametrize(("package", "name"), BUILDERS, ids=lambda value: value)
# A small one of each task, and what it is called with.
SMALL = {
    "ssdlite320_mobilenet_v3_large": lambda: ([torch.rand(3, 60, 80), torch.rand(3, 90, 70)],),
    "fasterrcnn_mobilenet_v3_large_320_fpn": lambda: ([torch.rand(3, 60, 80)],),
    "lraspp_mobilenet_v3_large": lambda: (torch.rand(1, 3, 64, 96),),
    "mc3_18": lambda: (torch.rand(1, 3, 4, 32, 32),),
    "raft_small": lambda: (torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128)),
}


def theirs_of(package, name):
    return THEIRS.get_model_builder(name), THEIRS.get_model_weights(name)


def untrained(name, **arguments):
    """torchvision's model without weights of any kind, in evaluation mode, with statistics that do something."""
    torch.manual_seed(0)
    if "weights_backbone" in inspect.signature(THEIRS.get_model_builder(name)).parameters:
        arguments = {"weights_backbone": None, **arguments}
    model = THEIRS.get_model(name, **arguments).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_(0, 0.1)
    return model


@pytest.fixture
def published(hub, monkeypatch, tmp_path):
    """Puts a state dict in the place of published weights; damages the file if it is asked to."""

    def publish(member, state_dict, damage=None, sha256=None):
        path = tmp_path / "weights.pth"
        torch.save(state_dict, path)
        data = path.read_bytes()
        digest = sha256 or hashlib.sha256(data).hexdigest()
        data = damage(data) if damage else data
        url = hub.add_file(f"/{type(member).__name__}-{digest[:8]}.pth", data)
        config = member.value.config.replace(sources=(url,))
        monkeypatch.setattr(member.value, "config", config)
        if config.task != "classification":
            entry = registry._registry.entries[config.architecture]
            monkeypatch.setitem(registry._registry.configs(entry), config.tag, config)
        return url

    return publish


def same(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in theirs)
    return len(ours) == len(theirs) and all(map(same, ours, theirs))


# names

def test_all_of_torchvisions_are_there():
    assert {package: len(registry.list_models(module=package)) for package in PACKAGES} == PACKAGES
    for package in PACKAGES:
        module = getattr(mvlib.models, package)
        theirs = THEIRS.list_models(module=getattr(THEIRS, package))
        assert mvlib.models.list_models(module=module) == theirs
        public = {key for key, value in vars(getattr(THEIRS, package)).items()
                  if not key.startswith("_") and not inspect.ismodule(value)}
        assert public <= set(dir(module))
    assert set(THEIRS.list_models()) <= set(mvlib.models.list_models())
    assert not set(mvlib.models.list_models(module=mvlib.models)) & {name for _, name in BUILDERS}


@each
def test_builders_and_enums_say_what_torchvisions_say(package, name):
    module, (theirs, their_enum) = getattr(mvlib.models, package), theirs_of(package, name)
    ours, enum = getattr(module, name), getattr(module, their_enum.__name__)
    assert mvlib.get_model_weights(name) is mvlib.get_model_weights(ours) is enum
    assert mvlib.models.get_model_builder(name) is ours and pickle.loads(pickle.dumps(ours)) is ours
    for mine, their in zip(*(inspect.signature(fn).parameters.values() for fn in (ours, theirs)), strict=True):
        assert (mine.name, mine.kind, repr(mine.default)) == (their.name, their.kind, repr(their.default))
    assert inspect.signature(ours).return_annotation is inspect.signature(theirs).return_annotation
    assert list(enum.__members__) == list(their_enum.__members__) and enum.DEFAULT.name == their_enum.DEFAULT.name
    for member in their_enum:
        mine = enum[member.name]
        assert mvlib.get_weight(repr(member)) is mine and pickle.loads(pickle.dumps(mine)) is mine
        assert enum.verify(member) is mine  # torchvision's own member
        assert mine.url == member.url and len(mine.url.rpartition("-")[2]) == len("01234567.pth")
        assert mine.meta == {**member.meta, "_docs": " ".join(member.meta["_docs"].split())}
        preset, their_preset = mine.transforms(), member.transforms()
        assert type(preset) is type(their_preset) and repr(preset) == repr(their_preset)
        assert {key: value for key, value in vars(preset).items() if not key.startswith("_")} == \
            {key: value for key, value in vars(their_preset).items() if not key.startswith("_")}


def test_transforms_take_other_arguments():
    weights = segmentation.FCN_ResNet50_Weights.DEFAULT
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    theirs = THEIRS.segmentation.FCN_ResNet50_Weights.DEFAULT.transforms(resize_size=32)
    assert torch.equal(weights.transforms(resize_size=32)(image), theirs(image))


@pytest.mark.sample(3)
@each
def test_state_dicts_have_torchvisions_keys(package, name):
    from mvlib.factory import Empty

    with Empty():
        theirs, ours = untrained(name), mvlib.create_model(name)
    assert type(ours) is type(theirs) and ours.structure == "torchvision"
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


def test_modules_classes_and_helpers_are_torchvisions_own():
    import mvlib.models.detection.faster_rcnn as faster_rcnn
    from mvlib.models.detection.rpn import AnchorGenerator

    assert faster_rcnn.FastRCNNPredictor is THEIRS.detection.faster_rcnn.FastRCNNPredictor
    assert faster_rcnn.fasterrcnn_resnet50_fpn is detection.fasterrcnn_resnet50_fpn
    assert AnchorGenerator is THEIRS.detection.rpn.AnchorGenerator
    assert faster_rcnn.overwrite_eps is THEIRS.detection._utils.overwrite_eps
    assert video.resnet.BasicBlock is THEIRS.video.resnet.BasicBlock
    assert optical_flow.RAFT is THEIRS.optical_flow.RAFT
    with pytest.raises(AttributeError, match="has no attribute 'raft_small'; mvlib.models.optical_flow has"):
        mvlib.models.raft_small  # noqa: B018
    with pytest.raises(AttributeError, match="'Raft_Small_Weights'; mvlib.models.optical_flow has"):
        mvlib.models.Raft_Small_Weights  # noqa: B018


# weights

@pytest.mark.sample(4)
@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_torchvisions(published, name):
    enum = mvlib.get_model_weights(name)
    arguments = {"num_classes": len(enum.DEFAULT.meta["categories"])} if "categories" in enum.DEFAULT.meta else {}
    their_enum = THEIRS.get_model_weights(name)
    theirs = untrained(name, **arguments)
    state_dict = theirs.state_dict()
    published(enum.DEFAULT, state_dict)
    if name.startswith("fasterrcnn"):  # whose norms are frozen where there are weights
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(their_enum, "get_state_dict", lambda *_, **__: state_dict)
            theirs = THEIRS.get_model(name, weights=their_enum.DEFAULT).eval()
    torch.manual_seed(1)
    inputs = SMALL[name]()
    expected = theirs(*inputs)
    full = f"{name}.{enum.DEFAULT.name.lower()}"
    for ours in (mvlib.models.get_model(name, weights="DEFAULT"), mvlib.create_model(full),
                 mvlib.create_model(name, pretrained=True)):
        assert type(ours) is type(theirs)
        assert {key: value.requires_grad for key, value in ours.named_parameters()} == \
            {key: value.requires_grad for key, value in theirs.named_parameters()}
        assert not any(value.is_meta for value in ours.state_dict().values())
        with torch.no_grad():
            assert same(ours.eval()(*inputs), expected)
        assert ours.weights_config.name == ours.base_weights.name == full


def test_the_first_weights_of_a_detector_take_no_epsilon(published):
    """As `fasterrcnn_resnet50_fpn(weights=COCO_V1)` in torchvision does, whichever way the model is built."""
    enum = THEIRS.detection.KeypointRCNN_ResNet50_FPN_Weights
    from torchvision.ops import FrozenBatchNorm2d

    from mvlib import mirror

    for name, eps in (("COCO_V1", 0.0), ("COCO_LEGACY", 1e-5)):
        config = mvlib.get_pretrained_cfg(f"keypointrcnn_resnet50_fpn.{enum[name].name.lower()}")
        model = mirror.build("keypointrcnn_resnet50_fpn", config, lambda model: None, {})
        assert {m.eps for m in model.modules() if isinstance(m, FrozenBatchNorm2d)} == {eps}


def test_other_classes_get_new_heads(published, caplog):
    weights = detection.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1
    state_dict = untrained("ssdlite320_mobilenet_v3_large", num_classes=91).state_dict()
    published(weights, state_dict)
    ours = mvlib.create_model("ssdlite320_mobilenet_v3_large.coco_v1", num_classes=3)
    assert "has 91 classes, the model 3: it was initialised anew" in caplog.text
    assert "'head.classification_head.module_list.0.1'" in caplog.text
    new = {key for key, value in ours.state_dict().items() if not torch.equal(value, state_dict[key])}
    assert new == {f"head.classification_head.module_list.{i}.1.{kind}" for i in range(6)
                   for kind in ("weight", "bias")}
    with pytest.raises(ValueError, match="'num_classes' expected value 91 but got 3"):
        detection.ssdlite320_mobilenet_v3_large(weights=weights, num_classes=3)


@pytest.mark.sample(3)
@each
def test_the_catalogs_know_the_heads(package, name):
    """What follows the number of classes, or of keypoints, is what `num_classes` initialises anew."""
    from mvlib.factory import Empty

    others = {"detection": {"num_classes": 5}, "segmentation": {"num_classes": 5, "aux_loss": True},
              "video": {"num_classes": 5}, "optical_flow": {}}[package]
    if name.startswith("lraspp"):
        del others["aux_loss"]
    if name.startswith("keypoint"):
        others["num_keypoints"] = 5
    with Empty():
        models = (mvlib.create_model(name, **{k: v for k, v in others.items() if k == "aux_loss"}),
                  mvlib.create_model(name, **others))
    usual, other = ({key: value.shape for key, value in model.state_dict().items()} for model in models)
    found = {key.rpartition(".")[0] for key in usual if usual[key] != other[key]}
    heads = mvlib.get_pretrained_cfg(name).classifier
    assert found == set([heads] if isinstance(heads, str) else heads or ())


def test_backbones_load_by_our_loader(published, hub):
    state_dict = untrained("mobilenet_v3_large").state_dict()
    url = published(mvlib.models.MobileNet_V3_Large_Weights.IMAGENET1K_V1, state_dict)
    first = state_dict["features.0.0.weight"]
    for model in (segmentation.lraspp_mobilenet_v3_large(num_classes=2),  # torchvision's default
                  mvlib.create_model("lraspp_mobilenet_v3_large", num_classes=2, weights_backbone="IMAGENET1K_V1")):
        assert torch.equal(model.backbone["0"][0].weight, first) and model.classifier.low_classifier.out_channels == 2
    backbone = mobilenet_backbone(backbone_name="mobilenet_v3_large", weights="IMAGENET1K_V1", fpn=True)
    assert torch.equal(backbone.body["0"][0].weight, first)
    frozen = detection.fasterrcnn_mobilenet_v3_large_fpn(weights=None)
    assert torch.equal(frozen.backbone.body["0"][0].weight, first)
    assert not frozen.backbone.body["0"][0].weight.requires_grad
    assert type(frozen.backbone.body["0"][1]).__name__ == "FrozenBatchNorm2d"
    assert len(hub.downloads) == 1 and url.endswith(next(iter(hub.downloads)))

    state_dict = untrained("resnet18").state_dict()
    published(mvlib.models.ResNet18_Weights.IMAGENET1K_V1, state_dict)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=mvlib.models.ResNet18_Weights.DEFAULT)
    assert torch.equal(backbone.body.layer4[1].conv2.weight, state_dict["layer4.1.conv2.weight"])
    assert not backbone.body.conv1.weight.requires_grad and backbone.body.layer4[0].conv1.weight.requires_grad


def test_nothing_is_fetched_unless_it_is_asked_for(published, hub):
    published(mvlib.models.MobileNet_V3_Large_Weights.IMAGENET1K_V1, {"a": torch.zeros(1)})
    mvlib.create_model("lraspp_mobilenet_v3_large")
    segmentation.lraspp_mobilenet_v3_large(weights_backbone=None)
    weights = segmentation.LRASPP_MobileNet_V3_Large_Weights.DEFAULT
    published(weights, untrained("lraspp_mobilenet_v3_large").state_dict())
    segmentation.lraspp_mobilenet_v3_large(weights="DEFAULT")  # without those of the backbone
    assert ["LRASPP" in path for path in hub.downloads] == [True]


def test_older_layouts_of_torchvisions_files(published):
    """RAFT's and the detectors' files are of several ages; torchvision's modules know the older names."""
    theirs = untrained("fasterrcnn_mobilenet_v3_large_320_fpn", num_classes=91)
    state_dict = theirs.state_dict()
    old = {key.replace("inner_blocks.0.0.", "inner_blocks.0.").replace("rpn.head.conv.0.0.", "rpn.head.conv."): value
           for key, value in state_dict.items()}
    assert old.keys() != state_dict.keys()
    published(detection.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1, old)
    ours = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights="COCO_V1")
    assert all(torch.equal(value, state_dict[key]) for key, value in ours.state_dict().items())


def test_damaged_files(published):
    weights, name = optical_flow.Raft_Small_Weights.C_T_V2, "raft_small.c_t_v2"
    state_dict = untrained("raft_small").state_dict()
    published(weights, state_dict, sha256="0" * 64)
    with pytest.raises(ChecksumError):
        mvlib.create_model(name)
    with pytest.raises(ChecksumError):
        optical_flow.raft_small(weights=weights)
    published(weights, {**state_dict, "flow": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"does not fit the model(.|\n)*unexpected \(1\): flow"):
        mvlib.create_model(name)
    first, *rest = state_dict
    published(weights, {key: state_dict[key] for key in rest})
    with pytest.raises(CheckpointError, match=rf"missing \(1\): {first}"):
        optical_flow.raft_small(weights=weights)
    published(weights, {**state_dict, first: torch.zeros(3)})
    with pytest.raises(CheckpointError, match=rf"other shape \(1\): {first} \(file \(3,\), model"):
        mvlib.create_model(name)


def test_files_of_users(tmp_path):
    theirs = untrained("lraspp_mobilenet_v3_large", num_classes=3)
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": theirs.state_dict(), "epoch": 3}, path)
    ours = mvlib.create_model("lraspp_mobilenet_v3_large", checkpoint_path=path, num_classes=3).eval()
    image = torch.rand(1, 3, 64, 64)
    assert same(ours(image), theirs(image))
    with pytest.raises(CheckpointError, match=r"other shape \(4\): classifier.low_classifier.weight \(file \(3, "):
        mvlib.create_model("lraspp_mobilenet_v3_large", checkpoint_path=path)
    ours = mvlib.create_model("lraspp_mobilenet_v3_large", pretrained_cfg={"file": str(path), "num_classes": 3},
                              pretrained=True).eval()
    assert same(ours(image), theirs(image))


def test_device_and_dtype():
    model = mvlib.create_model("raft_small", device="meta", dtype="bfloat16")
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    with torch.device("meta"):
        assert mvlib.create_model("mc3_18", num_classes=5).fc.weight.is_meta


def test_old_calls():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        segmentation.lraspp_mobilenet_v3_large(pretrained=False, pretrained_backbone=False)
        optical_flow.raft_small(None)
    texts = [str(warning.message) for warning in caught]
    assert all(warning.filename == __file__ and warning.category is UserWarning for warning in caught)
    assert texts[0].startswith("The parameter 'pretrained' is deprecated")
    assert texts[2].startswith("The parameter 'pretrained_backbone' is deprecated, please use 'weights_backbone'")
    assert "equivalent to passing `weights_backbone=None`" in texts[3]
    assert texts[4].startswith("Using 'weights' as positional parameter(s) is deprecated") and len(texts) == 5
    with pytest.warns(UserWarning, match="Changing trainable_backbone_layers has no effect") as caught:
        detection.ssdlite320_mobilenet_v3_large(weights_backbone=None, trainable_backbone_layers=2)
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.raises(TypeError, match="weights are of another model: expected Raft_Small_Weights"):
        optical_flow.raft_small(weights=optical_flow.Raft_Large_Weights.DEFAULT)


def test_unknown_names_and_arguments():
    with pytest.raises(ConfigError, match="'raft_small' does not know the argument 'num_classes'. It takes: context"):
        mvlib.create_model("raft_small", num_classes=3)
    with pytest.raises(ConfigError, match="'deeplabv3_resnet50' does not know the argument 'aux_los'; did you mean"):
        mvlib.create_model("deeplabv3_resnet50", aux_los=True)
    with pytest.raises(UnknownNameError, match="unknown tag 'coco_v2' of the architecture 'ssd300_vgg16'; did"):
        mvlib.create_model("ssd300_vgg16.coco_v2")
    with pytest.raises(ConfigError, match="there is no task 'detektion'; did you mean 'detection'?"):
        mvlib.list_models(task="detektion")
    with pytest.raises(ConfigError, match="there is no task 'x'; tasks: classification, detection, "):
        mvlib.search(task="x")


# tasks

def test_every_model_has_a_task(fresh_registry):
    tasks = {name: registry.task_of(name) for name in mvlib.list_models()}
    assert {name for name, task in tasks.items() if task != "classification"} == {name for _, name in BUILDERS}
    assert tasks["maskrcnn_resnet50_fpn_v2"] == "instance_segmentation"
    assert tasks["keypointrcnn_resnet50_fpn"] == "keypoint_detection"
    assert mvlib.list_models(task="optical_flow") == ["raft_large", "raft_small"]
    assert mvlib.list_models(task="video-classification") == mvlib.list_models(module="video")
    assert "fasterrcnn_resnet50_fpn.coco_v1" in mvlib.list_models("fasterrcnn*", pretrained=True)

    @mvlib.register_model(weights={"mine": {"task": "segmentation", "sources": ["file:/nowhere"]}})
    def my_segmenter(**kwargs):
        return nn.Linear(1, 1)

    assert registry.task_of("my_segmenter") == "segmentation"
    assert isinstance(mvlib.create_model("my_segmenter"), nn.Linear)


REFUSED = "'mc3_18' is a classifier of videos, and {} takes classifiers of images alone: call " \
    "mvlib.create_model('mc3_18') on clips (n, 3, frames, height, width), as " \
    "mvlib.get_model_weights('mc3_18').DEFAULT.transforms() prepares them"


@pytest.mark.parametrize(("command", "arguments"), [
    ("predict", ["--model", "mc3_18", "."]), ("embed", ["--model", "mc3_18", ".", "--output", "x.npy"]),
    ("validate", ["--model", "mc3_18", "."]), ("inference", ["--model", "mc3_18", "."]),
    ("train", [".", "--model", "mc3_18"]), ("compare", ["mc3_18"]), ("compare", ["resnet18", "mc3*"]),
    ("benchmark", ["mc3_18"]), ("export", ["mc3_18", "--output", "x"]),
], ids=lambda value: value if isinstance(value, str) else None)
def test_commands_refuse_what_is_for_another_task(command, arguments, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main([command, *arguments]) == 2
    assert capsys.readouterr().err == f"mvlib: {REFUSED.format(command)}\n"


def test_functions_refuse_what_is_for_another_task(tmp_path):
    with torch.device("meta"):
        model = mvlib.create_model("mc3_18")
    calls = {
        "features_only=True": lambda: mvlib.create_model("mc3_18", features_only=True),
        "benchmark": lambda: mvlib.benchmark_models("mc3_18"),
        "compare": lambda: mvlib.compare_models("mc3_18"),
        "export": lambda: mvlib.export("mc3_18", tmp_path / "x"),
    }
    for what, call in calls.items():
        with pytest.raises(ConfigError) as caught:
            call()
        assert str(caught.value) == REFUSED.format(what)
    of_models = {
        "optimize": lambda: mvlib.optimize(model, torch.rand(1, 3, 32, 32)),
        "export": lambda: mvlib.export(model, tmp_path / "x"),
        "resolve_data_config": lambda: mvlib.resolve_data_config(model=model),
        "save_for_hub": lambda: mvlib.save_for_hub(model, tmp_path / "x"),
    }
    for what, call in of_models.items():
        with pytest.raises(ConfigError, match=rf"'mc3_18(.\w+)?' is a classifier of videos, and {what} takes "):
            call()
    assert not list(tmp_path.iterdir())


def test_timms_face_knows_classifiers_alone():
    import mvlib.timm

    assert mvlib.timm.list_models("*3d_18*") == mvlib.timm.list_models(module="video") == []
    with pytest.raises(UnknownNameError, match=r"Unknown model \(mc3_18\)"):
        mvlib.timm.create_model("mc3_18")


def test_wildcards_of_classifiers_find_no_others():
    assert registry.match_models("*") == mvlib.list_models(task="classification")
    assert not set(mvlib.models.__dict__) & {name for _, name in BUILDERS}


def test_list_info_and_search(capsys):
    assert main(["list", "fasterrcnn*"]) == 0
    assert capsys.readouterr().out.split() == [name for _, name in BUILDERS if name.startswith("fasterrcnn")]
    assert main(["list", "--task", "segmentation", "--pretrained"]) == 0
    assert "fcn_resnet50.coco_with_voc_labels_v1" in capsys.readouterr().out.split()
    assert main(["list", "--modules", "--task", "optical_flow"]) == 0 and capsys.readouterr().out == "optical_flow\n"

    assert main(["info", "fasterrcnn_resnet50_fpn", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["task"] == "detection" and facts["labels"] == "91 classes (coco)"
    assert facts["metrics"] == "COCO-val2017: box_map 37.0" and facts["tags"][0]["box_map"] == 37.0
    assert facts["preprocessing"] == "as torchvision's ObjectDetection" and facts["module"] == "detection"
    assert main(["info", "r3d_18"]) == 0
    assert "resize 128 x 171 (bilinear), crop 112, as torchvision's VideoClassification" in capsys.readouterr().out

    assert main(["search", "--task", "detection", "--format", "csv"]) == 0
    header, first, *rest = capsys.readouterr().out.splitlines()
    assert header == "name,box_map,params,gmacs,input,license" and len(rest) == 8
    assert first.startswith("fasterrcnn_resnet50_fpn_v2.coco_v1,46.7,43.7")
    flows = mvlib.search(task="optical_flow")
    assert [record.epe for record in flows[:4]] == sorted(record.epe for record in flows[:4])
    assert flows[0].name == "raft_large.c_t_v2" and flows[4].epe is None
    assert [record.name for record in mvlib.search("video_top1>81")] == ["swin3d_b.kinetics400_imagenet22k_v1"]
    assert {record.task for record in mvlib.search("kp_map>0")} == {"keypoint_detection"}


def test_listing_imports_no_torch():
    code = """if True:
        import sys, mvlib
        from mvlib.cli import main
        assert len(mvlib.list_models(task="detection")) == 9
        for command in (["list", "--task", "detection"], ["info", "s3d"], ["search", "--task", "detection"]):
            assert main(command) == 0
        weights = mvlib.get_weight("FasterRCNN_ResNet50_FPN_Weights.COCO_V1")
        assert weights.meta["_metrics"] == {"COCO-val2017": {"box_map": 37.0}} and weights.url
        assert "torch" not in sys.modules
    """
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
