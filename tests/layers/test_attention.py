"""The switch between fused and plain attention, and what hooks see of the maps, as in timm."""

import copy
import functools
import importlib.util

import pytest
import timm
import torch
from timm.models import vision_transformer as timm_vit
from timm.utils.attention_extract import AttentionExtract

import mvlib
from mvlib.layers import config, set_fused_attn
from mvlib.layers.attention import attend
from mvlib.models import vision_transformer as vit
from tests.parity.harness import build_ours, build_timm, randomize, relative_difference
from tests.skeleton import uninitialised

_VIT = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=5)
_SWIN = dict(img_size=64, embed_dim=16, depths=(2, 2), num_heads=(1, 2), window_size=4, num_classes=5)


def _blocks(name, **kwargs):
    """Models of blocks that no published architecture has."""
    return [module.VisionTransformer(block_fn=getattr(module, name), **_VIT, **kwargs) for module in (vit, timm_vit)]


def _named(name, **kwargs):
    return [library.create_model(name, pretrained=False, **kwargs) for library in (mvlib, timm)]


CASES = {
    "vit": lambda: _blocks("Block"),
    "vit, qk_norm": lambda: _blocks("Block", qk_norm=True, scale_attn_norm=True),
    "vit, map": lambda: _blocks("Block", class_token=False, global_pool="map"),
    "vit, prr": lambda: _blocks("Block", global_pool="prr"),
    "vit, diff": lambda: _blocks("Block", attn_layer="diff"),
    "post norm": lambda: _blocks("ResPostBlock"),
    "parallel things": lambda: _blocks("ParallelThingsBlock"),
    "parallel scaling": lambda: _blocks("ParallelScalingBlock", qk_norm=True),
    "parallel scaling, diff": lambda: _blocks("DiffParallelScalingBlock"),
    "deit": lambda: _named("deit_tiny_distilled_patch16_224", img_size=32),
    "swin": lambda: _named("swin_tiny_patch4_window7_224", **_SWIN),
    "swin v2": lambda: _named("swinv2_tiny_window8_256", **_SWIN),
    "coatnet": lambda: _named("coatnet_rmlp_1_rw_224", img_size=64, embed_dim=(32, 32, 32, 64), depths=(1, 1, 1, 1)),
    "maxvit": lambda: _named("maxvit_tiny_tf_224", img_size=64, embed_dim=(32, 32), depths=(1, 1), stem_width=32,
                             block_type=("M", "M"), head_hidden_size=32),
    "mobilenetv4": lambda: _named("mobilenetv4_hybrid_medium", num_classes=5),
}
SIDES = dict.fromkeys(CASES, 64) | {case: 32 for case in CASES if case.startswith(("vit", "p", "deit"))}


def image(side, batch=2):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


@functools.cache
def pair(case):
    with uninitialised():
        ours, theirs = CASES[case]()
    randomize(theirs, image(SIDES[case]))
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


def switch(model, fused):
    """Set the switch of all modules that have it. Returns how many these are."""
    modules = [module for module in model.modules() if hasattr(module, "fused_attn")]
    for module in modules:
        module.fused_attn = fused
    return len(modules)


def maps(model, x):
    """{path of an attention's softmax or dropout: what hooks see go in and come out}"""
    seen, handles = {}, []
    for name, module in model.named_modules():
        if name.endswith(("attn_drop", "attn.softmax")):
            handles.append(module.register_forward_hook(
                lambda module, args, output, name=name: seen.update({name: (args[0], output)})))
    with torch.inference_mode():
        model(x)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("case", CASES)
def test_hooks_see_the_maps_that_they_see_in_timm(case):
    (ours, theirs), x = pair(case), image(SIDES[case])
    assert switch(ours, False) >= switch(theirs, False)
    seen, expected = maps(ours, x), maps(theirs, x)
    assert seen.keys() == expected.keys()
    assert seen
    for name, (inputs, outputs) in seen.items():
        for own, other in zip((inputs, outputs), expected[name]):
            assert own.shape == other.shape
            assert relative_difference(own, other) < 1e-5, name


@pytest.mark.parametrize("case", CASES)
def test_both_ways_give_the_same_outputs_and_gradients(case):
    ours, x = copy.deepcopy(pair(case)[0]).double(), image(SIDES[case]).double()
    results = []
    for fused in (True, False):
        switch(ours, fused)
        ours.zero_grad()
        logits = ours(x)
        logits.square().sum().backward()
        gradients = [p.grad.flatten() for p in ours.parameters() if p.grad is not None]
        results.append((logits.detach(), torch.cat(gradients)))
    for own, other in zip(*results):
        assert relative_difference(own, other) < 1e-10


@pytest.mark.parametrize("case", ["swin", "swin v2"])
def test_hooks_see_swin_s_maps_unasked_as_in_timm(case):
    (ours, theirs), x = pair(case), image(SIDES[case])
    switch(ours, True), switch(theirs, False)
    assert maps(ours, x).keys() == maps(theirs, x).keys() != set()


def test_every_architecture_with_timm_s_switch_has_it():
    """One architecture of each set of classes that timm's have."""
    for name in ("vit_tiny_patch16_224", "vit_base_patch16_xp_224", "vit_so150m_patch16_reg4_map_256",
                 "swin_tiny_patch4_window7_224", "coatnet_0_rw_224", "maxvit_tiny_tf_224", "mobilenetv4_hybrid_medium",
                 "mobilenetv4_hybrid_medium_075"):
        ours, theirs = build_ours(name), build_timm(name, meta=True)
        switched, expected = ({path for path, module in model.named_modules() if hasattr(module, "fused_attn")}
                              for model in (ours, theirs))
        assert switched == expected != set(), name


def test_switch_for_models_to_come():
    built = []
    try:
        for arguments in ((False,), (True,), (True, True), (False, True)):
            set_fused_attn(*arguments)
            built.append(vit.VisionTransformer(**_VIT).blocks[0].attn.fused_attn)
    finally:
        set_fused_attn()
    assert built == [False, True, True, False]


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True), ("2", True), ("no", None)])
def test_environment_variable(value, expected, monkeypatch):
    monkeypatch.setenv("TIMM_FUSED_ATTN", value)
    spec = importlib.util.spec_from_file_location("mvlib.layers.config_again", config.__file__)
    module = importlib.util.module_from_spec(spec)
    if expected is None:
        with pytest.raises(ValueError, match="TIMM_FUSED_ATTN is 0 .*, not 'no'"):
            spec.loader.exec_module(module)
        return
    spec.loader.exec_module(module)
    assert module.use_fused_attn() == expected and module.use_fused_attn(experimental=True) == (value == "2")


def test_dropout_of_the_map_is_that_of_the_module():
    x = torch.randn(1, 2, 64, 8)
    drop = torch.nn.Dropout(0.5)
    for fused in (True, False):
        identity = attend(x, x, torch.eye(64).expand(1, 2, 64, 64), fused, drop)
        assert 0.4 < (identity == 0).float().mean() < 0.6
        assert (attend(x, x, torch.eye(64).expand(1, 2, 64, 64), fused, drop.eval()) > 0).all()
        drop.train()


@pytest.mark.parametrize("make", [
    lambda: torch.randn(4, 6), lambda: torch.rand(4, 6) > 0.3, lambda: torch.randn(2, 3, 4, 6)],
    ids=["added", "boolean", "own"])
def test_masks(make):
    torch.manual_seed(0)
    mask = make()
    q, k, v = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 5)
    for scale in (None, 0.2):
        fused, plain = (attend(q, k, v, fused, mask=mask, scale=scale) for fused in (True, False))
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["hook", "fx"])
def test_timm_s_own_extractor(method):
    ours, theirs = pair("vit")
    for model in (ours, theirs):
        switch(model, False)
    x = image(32)
    with torch.no_grad():
        found, expected = (AttentionExtract(model, method=method)(x) for model in (ours, theirs))
    assert found.keys() == expected.keys() != set()
    for name, value in expected.items():
        assert relative_difference(found[name], value) < 1e-5


def test_optimized_model_shows_its_maps():
    ours, x = pair("vit")[0], image(32)
    switch(ours, True)
    optimized, _ = mvlib.optimize(ours, x)
    assert not maps(optimized, x)
    switch(optimized, False)
    seen = maps(optimized, x)
    switch(ours, False)
    expected = maps(ours, x)
    assert {f"model.{name}" for name in expected} == seen.keys() != set()
    for name, (value, _) in expected.items():
        assert relative_difference(seen[f"model.{name}"][0], value) < 1e-4


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch older than 2.7")
def test_a_learned_bias_goes_to_onnx_with_gradients_on(tmp_path):
    """The fused kernel with one is laid out otherwise once torch's exporter has taken it apart."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = mvlib.create_model("beit_base_patch16_224", img_size=32, embed_dim=32, depth=1, num_heads=2).eval()
    x = torch.randn(2, 3, 32, 32)
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), model(x).detach())
