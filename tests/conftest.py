"""Fixtures that several test files use."""

import huggingface_hub
import pytest

from .hub_server import HubServer


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of the hub's client and of torch.hub, for this process and those that it starts."""
    hub_cache, torch_home = tmp_path / "caches" / "hub", tmp_path / "caches" / "torch"
    monkeypatch.setenv("HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setenv("TORCH_HOME", str(torch_home))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    return tmp_path / "caches"


@pytest.fixture
def hub(caches, monkeypatch):
    """A hub on this machine, and caches of its own."""
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.endpoint)
        yield server
