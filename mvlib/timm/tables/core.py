"""timm itself, and how its models are registered, built, loaded and taken apart. Imports no torch."""

from __future__ import annotations

NAMES: dict[str, dict[str, str]] = {
    "": {
        "mvlib.registry": "get_pretrained_cfg get_pretrained_cfg_value is_model is_model_pretrained list_models "
                          "list_modules list_pretrained model_entrypoint",
        "mvlib.factory": "create_model",
    },
    "models": {
        "mvlib.registry": "get_pretrained_cfg get_pretrained_cfg_value is_model is_model_pretrained list_models "
                          "list_modules list_pretrained model_entrypoint",
        "mvlib.factory": "create_model",
    },
    "version": {"mvlib.timm": "__version__"},
}

ABSENT: dict[str, str] = {}

REDIRECTS: dict[str, str] = {  # an old path that timm still has: the path whose names it has
    "models.layers": "layers",
}
