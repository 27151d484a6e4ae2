"""What the tests of the faces share."""

import copy

import pytest


@pytest.fixture(scope="module", autouse=True)
def timms_registry_as_it_was():
    """What a file's tests register in timm is not there for others."""
    from timm.models import _registry

    with pytest.MonkeyPatch.context() as patch:
        for name, value in list(vars(_registry).items()):
            if name.startswith(("_model", "_module", "_deprecated")):
                patch.setattr(_registry, name, copy.deepcopy(value))
        yield
