"""What strangers wrote: config.json, safetensors and .pth, changed at random. Nothing but mvlib's errors, no code run.

1,000 changes by default, as many with -m slow; MVLIB_FUZZ=100000 makes more, MVLIB_FUZZ_SEED=7 others. A failure
prints what made it fail.
"""

import json
import logging
import os
import random
import struct
import sys
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save

import mvlib
from mvlib.errors import MvlibError

COUNT = int(os.environ.get("MVLIB_FUZZ", "2000"))
SEED = int(os.environ.get("MVLIB_FUZZ_SEED", "0"))

# Networks of a few thousand weights each, of as many kinds as there are.
NETWORKS = {
    "resnet18": dict(channels=[8, 8, 8, 8], layers=[1, 1, 1, 1]),
    "vit_tiny_patch16_224": dict(img_size=32, embed_dim=16, depth=1, num_heads=2, global_pool="avg"),
    "deit_tiny_distilled_patch16_224": dict(img_size=[32, 32], embed_dim=16, depth=1, num_heads=2),
    "convnext_atto": dict(dims=[8, 8, 8, 8], depths=[1, 1, 1, 1]),
    "swin_tiny_patch4_window7_224": dict(img_size=64, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4),
    "swinv2_tiny_window8_256": dict(img_size=64, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4),
    "efficientnet_b0": dict(block_args=[["ds_r1_k3_s1_e1_c8_se0.25"], ["ir_r1_k3_s2_e2_c8"]], num_features=16),
    "mobilenetv3_small_050": dict(block_args=[["uir_r1_k3_s2_e2_c8"]], num_features=16, head_hidden_size=None),
    "regnetx_002": dict(depth=5, w0=8, wa=12.0, wm=2.0, group_size=8),
    "densenet121": dict(block_config=[1, 1], growth_rate=8),
    "coatnet_nano_cc_224": dict(img_size=64, embed_dim=[32, 32], depths=[1, 1], block_type=["C", "T"], stem_width=8),
    "shufflenet_v2_x0_5": {},
}
TEXTS = ("", "x" * 5000, "avg", "token", "\0", "../../etc/passwd", "/etc/passwd", "file:/etc/passwd", "cls.fc.weight",
         "r99999999999", "ir_r99999999999_k3_s1_e1_c8", "__import__('os').system('id')", "\ud800")
NUMBERS = (0, 1, -1, 2, 3, 7, 160, 65535, 65537, 10**6, 10**9, 10**400, -(10**9), 0.5, -0.5, 1e-300, 1e308, -1e308,
           float("nan"), float("inf"))


def anything(rng, depth=0):
    """A value that JSON can hold."""
    kind = rng.randrange(6 if depth < 2 else 4)
    if kind == 4:
        return [anything(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 3, 4, 2000) if depth == 0 else (0, 2)))]
    if kind == 5:
        return {rng.choice(("a", "0", "in1k", *TEXTS)): anything(rng, depth + 1) for _ in range(rng.randrange(3))}
    return (rng.choice(TEXTS), rng.choice(NUMBERS), rng.choice((None, True, False)), rng.choice(NUMBERS))[kind]


def places(data, path=()):
    """Paths of everything in nested lists and dicts."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def change(rng, config, known):
    """Change a config in one place or in two."""
    for _ in range(rng.choice((1, 1, 2))):
        kind = rng.randrange(4)
        if kind == 0:
            config["model_args"][rng.choice(known)] = anything(rng)
        elif kind == 1:
            fields = list(mvlib.WeightsConfig.__dataclass_fields__)
            section = config.setdefault(rng.choice(("pretrained_cfg", "mvlib")), {})
            if isinstance(section, dict):
                section[rng.choice(fields)] = anything(rng)
        else:
            path = rng.choice(list(places(config))[1:])
            parent = config
            for key in path[:-1]:
                parent = parent[key]
            if kind == 2 and rng.random() < 0.2:
                del parent[path[-1]]
            else:
                parent[path[-1]] = anything(rng)
        if not isinstance(config.get("model_args"), dict):
            return


def damage(rng, data):
    """Change bytes, cut off, or double a part."""
    data = bytearray(data)
    kind = rng.randrange(4)
    where = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 400))
    if kind == 0:
        for _ in range(rng.choice((1, 1, 4, 32))):
            data[rng.randrange(max(where - 200, 0), min(where + 200, len(data)))] = rng.randrange(256)
    elif kind == 1:
        del data[where:]
    elif kind == 2:
        data[where:where] = data[where:where + rng.randrange(200)]
    else:
        data[where:where + 8] = struct.pack("<q", rng.choice((-1, 2**31, 2**40, 2**63 - 1, 0)))
    return bytes(data)


class Canary:
    """Unpickled by a careless reader, it makes a folder."""

    def __init__(self, path, call=os.mkdir):
        self.path, self.call = str(path), call

    def __reduce__(self):
        return self.call, (self.path,)


class Watch:
    """Writes a list of what a process does to files outside a folder, and of the programs that it starts."""

    STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect")
    CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod",
               "shutil.rmtree", "shutil.move", "shutil.copyfile")
    READABLE = (*filter(None, sys.path), sys.prefix, sys.base_prefix, "/proc/", "/sys/", "/dev/")

    def __init__(self, folder):
        self.folder, self.active, self.seen = str(folder), False, []
        sys.addaudithook(self.hook)  # for good: there is no way to take it back

    def hook(self, event, args):
        if not self.active:
            return
        if event in self.STARTS:
            self.seen.append((event, *map(str, args[:2])))
        elif event in self.CHANGES or event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
            path = os.path.abspath(os.fsdecode(args[0]))
            writes = event != "open" or bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            if not path.startswith(self.folder) and (writes or not path.startswith(self.READABLE)) and \
                    not path.endswith((".py", ".pyc")):
                self.seen.append((event, path))

    def __enter__(self):
        self.active = True
        return self

    def __exit__(self, *exception):
        self.active = False


@pytest.fixture(autouse=True)
def silence():
    """What is logged may hold what no report can be written with."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def watch(tmp_path_factory):
    return Watch(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def networks():
    """{architecture: (config, state dict)}"""
    found = {}
    for name, arguments in NETWORKS.items():
        model = mvlib.create_model(name, num_classes=5, **arguments)
        size = model.pretrained_cfg["input_size"]
        config = {"architecture": name, "num_classes": 5, "label_names": list("abcde"),
                  "model_args": dict(arguments, in_chans=3),
                  "pretrained_cfg": {"tag": "mine", "input_size": list(size), "crop_pct": 0.9, "mean": [0.5, 0.5, 0.5],
                                     "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "num_classes": 5,
                                     "first_conv": model.pretrained_cfg["first_conv"],
                                     "classifier": model.pretrained_cfg["classifier"]},
                  "mvlib": {"preprocessing": "torchvision", "resize_size": 70}}
        found[name] = config, model.state_dict()
    mvlib.create_transform(**mvlib.resolve_data_config(model=model))  # imports torchvision, which makes a folder
    return found


def survives(watch, root, folder, what, **options):
    """Build what a folder in `root` holds: it works, or there is an error of mvlib's; and it leaves no traces."""
    with watch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = mvlib.create_model(f"local-dir:{folder}", **options)
            mvlib.create_transform(**mvlib.resolve_data_config(model=model))
        except MvlibError as error:
            assert len(str(error)) < 20_000, what
        except Exception as error:
            raise AssertionError(ascii(f"{type(error).__name__}: {error}; {what}")) from None
    assert not watch.seen, (watch.seen, what)
    assert not (root / "canary").exists(), what


@pytest.mark.slow
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2, 3))])
def test_configs(part, watch, networks, tmp_path):
    rng = random.Random(f"{SEED} {part}")
    for name, (_, state_dict) in networks.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(save(state_dict))
    known = {name: sorted(mvlib.factory.known_arguments(name)) for name in networks}
    for _ in range(COUNT // 8):
        name = rng.choice(list(networks))
        config = json.loads(json.dumps(networks[name][0]))
        change(rng, config, known[name])
        text = json.dumps(config).encode()
        if rng.random() < 0.1:
            text = damage(rng, text)
        (tmp_path / name / "config.json").write_bytes(text)
        options = rng.choice(({}, {}, {"num_classes": 3}, {"in_chans": 1}, {"features_only": True}))
        survives(watch, tmp_path, tmp_path / name, (options, text[:3000]), **options)


def hostile_state_dict(rng, state_dict, folder):
    """A state dict with something in it that does not belong there; and what that is."""
    changed = dict(state_dict)
    key = rng.choice(list(changed))
    value = changed[key]
    strange = [
        torch.tensor(1.0), torch.empty(0), value.to(torch.complex64), value.to(torch.bfloat16), value.to(torch.int8),
        value.to("meta"), value.reshape(-1).float().to_sparse(), torch.zeros(1).expand(10**9), value[None], None, 3,
        "x" * 5000, {}, {"state_dict": {}}, [value] * 3, Canary(folder / "canary"),
        Canary(f"mkdir {folder}/canary", os.system), Canary(f"open('{folder}/canary', 'w')", eval),
    ]
    place = rng.choice((key, key, "head.weight", "", "module.", 3, "zero_point", "state_dict", "model_ema", "trunk"))
    index = rng.randrange(len(strange))
    changed[place] = strange[index]
    others = {"state_dict": changed}, {"model": changed, "args": Canary(folder / "canary")}, [changed]
    return rng.choice((changed, changed, *others)), (place, index)


@pytest.mark.parametrize("kind, part", [("safetensors", 0), *(
    pytest.param(*case, marks=pytest.mark.slow) for case in (("safetensors", 1), ("pth", 0), ("pth", 1)))])
def test_weights(part, kind, watch, networks, tmp_path):
    rng = random.Random(f"{SEED} {kind} {part}")
    for _ in range(COUNT // 8):
        name = rng.choice(sorted(networks.keys() - {"shufflenet_v2_x0_5"}))  # which is large
        config, state_dict = networks[name]
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        path = folder / {"safetensors": "model.safetensors", "pth": "pytorch_model.bin"}[kind]
        if kind == "safetensors":
            what = hostile_header(rng, save(state_dict)) if rng.random() < 0.5 else damage(rng, save(state_dict))
            path.write_bytes(what)
        elif rng.random() < 0.5:
            data, what = hostile_state_dict(rng, state_dict, tmp_path)
            torch.save(data, path, _use_new_zipfile_serialization=rng.random() < 0.7)
        else:
            torch.save(state_dict, path, _use_new_zipfile_serialization=rng.random() < 0.7)
            what = damage_archive(rng, path)
        options = rng.choice(({}, {}, {"num_classes": 3}, {"in_chans": 1}))
        survives(watch, tmp_path, folder, (name, options, str(what)[:500]), **options)


def hostile_header(rng, data):
    """A safetensors file with another header."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    for _ in range(rng.choice((1, 2))):
        path = rng.choice(list(places(header))[1:])
        parent = header
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = rng.choice((anything(rng), "F64", "F8_E4M3", "BOOL", [0, 10**12]))
        if len(path) == 1:
            break
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length:]


def damage_archive(rng, path):
    """Damage a file of torch.save's: anywhere, or the pickle in a zip that is whole."""
    if not zipfile.is_zipfile(path) or rng.random() < 0.4:
        path.write_bytes(damage(rng, path.read_bytes()))
        return path.read_bytes()[:400]
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in members if name.endswith("data.pkl")) if rng.random() < 0.9 else \
        rng.choice(list(members))
    members[name] = damage(rng, members[name]) if members[name] else b"\0"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return name, members[name][:2000]
