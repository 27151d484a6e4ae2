"""Sessions: torch's and an export's, which answer alike; what is asked of an export that it was not made for."""

import dataclasses

import numpy as np
import pytest
import torch

from mvlib.errors import ConfigError, MissingPackageError, NoAnswerError
from mvlib.inference import session as sessions
from mvlib.inference.pipeline import Job
from mvlib.inference.session import Settings, classify, embed, open_session


def answers(session, compute, root):
    files = [root / f"{number}.png" for number in range(5)]
    return list(session.answers([Job(files[:3]), Job(files[3:])], compute))


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_an_export_answers_as_torch_does(exports, prefix):
    found = {}
    for name in (f"local-dir:{exports}/repository", f"{prefix}{exports}/classifier.ov"):
        session = open_session(Settings(model=name, batch_size=4, decode="reference"))
        found[name] = answers(session, classify(session, 3), exports)
        assert session.class_names == [f"kind {i}" for i in range(7)] and session.num_classes == 7
    for one, other in zip(*found.values()):
        assert (one.read, one.failures) == (other.read, other.failures)
        for row, same in zip(one.output, other.output):
            assert [item[:2] for item in row] == [item[:2] for item in same]
            np.testing.assert_allclose([item[2] for item in row], [item[2] for item in same], atol=1e-5)


@pytest.mark.parametrize("wanted", ["auto", "pooled"])
def test_features_of_an_export_are_those_of_torch(exports, wanted):
    found = []
    for name in (f"local-dir:{exports}/repository", f"{exports}/pooled.ov"):
        session = open_session(Settings(model=name, batch_size=4, decode="reference"), wanted)
        compute = embed(session, "float16")
        assert session.features == "pooled" and session.try_out(compute).shape == (1, 96)
        found.append(np.concatenate([answer.output for answer in answers(session, compute, exports)]))
    assert found[0].shape == (4, 96) and found[1].dtype == np.float16
    np.testing.assert_allclose(*found, atol=2e-3 * np.abs(found[0]).max())


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torchscript", pytest.param("torch-export", marks=pytest.mark.slow)])
def test_exports_in_other_formats(exports, format, tmp_path):
    import mvlib

    model = mvlib.create_model(f"local-dir:{exports}/repository").eval()
    mvlib.export(model, tmp_path / "export", format=format)
    found = [answers(session, classify(session, 2), exports)[1].output for session in (
        open_session(Settings(model=str(place), device="cpu"))
        for place in (tmp_path / "export", exports / "classifier.ov"))]
    for row, same in zip(*found):
        assert [item[:2] for item in row] == [item[:2] for item in same]
        np.testing.assert_allclose([item[2] for item in row], [item[2] for item in same], atol=1e-5)


class Fixed(sessions.Session):
    """Gives what it was made with."""

    num_classes, class_names, name = 3, ["a", "b", "c"], "fixed"

    def __init__(self, *rows):
        self.rows = np.array(rows, np.float32)

    def __call__(self, images):
        return self.rows


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_no_answer(value):
    session = Fixed([1, 2, 3], [1, value, 0], [0, -np.inf, -np.inf], [-np.inf] * 3)
    with pytest.raises(NoAnswerError, match="image 1 of the batch: no answer: the model gives NaN or inf") as raised:
        classify(session, 2)(None)
    assert list(raised.value.rows) == [1, 3]
    assert classify(Fixed([0, -np.inf, -np.inf]), 2)(None) == [[(0, "a", 1.0), (1, "b", 0.0)]]  # b and c are ruled out
    with pytest.raises(NoAnswerError) as raised:
        embed(session)(None)
    assert list(raised.value.rows) == [1, 2, 3]
    with pytest.raises(NoAnswerError, match="image 1 of the batch: no answer: its features are too large for float16"):
        embed(Fixed([1, 2, 3], [1, 7e4, 0]), "float16")(None)
    assert embed(Fixed([1, 7e4, 0]))(None).tolist() == [[1, 7e4, 0]]


def test_what_results_depend_on(exports):
    torchs = open_session(Settings(model=f"local-dir:{exports}/repository"), with_digest=True).describe()
    engines = open_session(Settings(model=f"{exports}/classifier.ov"), with_digest=True).describe()
    assert {key for key in {**torchs, **engines} if torchs.get(key) != engines.get(key)} >= {"engine"}
    assert torchs["weights"] == engines["weights"] and len(engines["engine"]["digest"]) == 64


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 8, 1)), (3, (3, 2, 1)), (20, (8, 1, 3)), (None, (8, 1, 4))])
def test_few_photographs_have_all_cores(count, expected, exports, monkeypatch):
    monkeypatch.setattr("mvlib.inference.engine_session.compute_threads", lambda: 8)
    asked = {}
    monkeypatch.setattr("mvlib.inference.engine_session.open_engine", lambda folder, **how: asked.update(how))
    session = open_session(Settings(model=f"{exports}/classifier.ov", count=count))
    assert (asked["lanes"], asked["threads"], session.batch_size) == expected
    assert session.lanes == asked["lanes"]


@pytest.mark.parametrize(("options", "features", "message"), [
    (dict(checkpoint="x.pth"), None, "is an export, which has its weights within it: leave out --checkpoint"),
    (dict(device="cuda"), None, "engines in the format openvino run on the CPU, not on cuda"),
    (dict(compile="on"), None, "is an export, compiled already: --compile is for models that torch runs"),
    (dict(precision="int8"), None, "is an export in float32, and cannot compute in int8: export 'test_resnet"),
    (dict(precision="float8"), None, "unknown precision 'float8'; known: float32, bfloat16, float16, int8"),
    ({}, "pooled", "is an export of a classifier, without features: export 'test_resnet.* with --features pooled"),
    ({}, "auto", "is an export of a classifier, without features: export 'test_resnet.* with --features pooled"),
    ({}, "layer2", "is an export of a classifier, without features: export 'test_resnet.* with --level layer2"),
    (dict(model="pooled.ov"), None, "is an export of features .'pooled'., which predicts no classes"),
    (dict(model="pooled.ov"), "tokens", "is an export of the features 'pooled', not of 'tokens': leave that out, or"),
])
def test_what_an_export_was_not_made_for(options, features, message, exports):
    name = f"{exports}/{options.get('model', 'classifier.ov')}"
    with pytest.raises(ConfigError, match=message):
        open_session(Settings(**{**options, "model": name}), features)


def test_maps_and_batches_of_another_size(exports, monkeypatch):
    folder = sessions.read_export(f"{exports}/pooled.ov")
    two = dataclasses.replace(folder, features="maps", outputs=folder.outputs * 2)
    one = dataclasses.replace(folder, features=None, input=dataclasses.replace(folder.input, shape=(1, 3, 160, 160)))
    monkeypatch.setattr(sessions, "read_export", {"two": two, "one": one}.get)
    monkeypatch.setattr(sessions, "is_export", lambda name: True)
    with pytest.raises(ConfigError, match="gives 2 maps of features, of which one alone can be kept: export 'test_"):
        open_session(Settings(model="two"), "auto")
    assert open_session(Settings(model="one")).batch_size == 1
    with pytest.raises(ConfigError, match="was exported for batches of 1: leave out --batch-size, or export it again"):
        open_session(Settings(model="one", batch_size=4))


def test_without_torch(monkeypatch):
    monkeypatch.setattr(sessions, "is_installed", lambda package: package != "torch")
    with pytest.raises(MissingPackageError, match="torch, which runs models, is not installed: pip install torch"):
        open_session(Settings(model="resnet50"))


@pytest.mark.parametrize(("row", "count", "expected"), [
    ([1.0, 3.0, 2.0], 2, [1, 2]),
    ([2.0, 2.0, 1.0, 2.0], 2, [0, 1]),  # of equal ones the first
    ([0.0, -np.inf, 0.0], 3, [0, 2, 1]),
])
def test_the_likeliest(row, count, expected):
    numbers, values = sessions._likeliest(np.array(row, np.float32), count)
    assert numbers == expected
    wanted = torch.tensor(row).softmax(0)[numbers].tolist()
    np.testing.assert_allclose(values, wanted, rtol=1e-6)
