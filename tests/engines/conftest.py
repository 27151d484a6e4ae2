"""What tests of engines share."""

import shutil
from pathlib import Path

import pytest

import mvlib


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("MVLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A repository of a small model on disk."""
    from mvlib.publish import save_for_hub  # with torch, which the processes below do without

    return save_for_hub(mvlib.create_model("test_efficientnet", num_classes=3), tmp_path_factory.mktemp("tiny"),
                        label_names=["ant", "bee", "cat"])


@pytest.fixture
def repository(tiny, tmp_path):
    """One of which a test may change the files."""
    return Path(shutil.copytree(tiny, tmp_path / "tiny"))
