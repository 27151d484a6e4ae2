"""timm itself, and how its models are registered, built, loaded and taken apart. Imports no torch."""

from __future__ import annotations

_MEANINGS = "mvlib.timm.meanings"

_REGISTRY = {
    "mvlib.registry": "get_arch_name get_deprecated_models is_model_in_modules is_model_pretrained "
                      "split_model_name_tag",
    f"{_MEANINGS}.registry": "generate_default_cfgs get_arch_pretrained_cfgs get_pretrained_cfg "
                             "get_pretrained_cfg_value is_model list_models list_modules list_pretrained "
                             "model_entrypoint register_model register_model_deprecations",
}
_FACTORY = {f"{_MEANINGS}.factory": "create_model parse_model_name resolve_model_input_args safe_model_name"}
_PRETRAINED = {f"{_MEANINGS}.pretrained": "DefaultCfg PretrainedCfg filter_pretrained_cfg"}
_BUILDER = {f"{_MEANINGS}.builder": "build_model_with_cfg load_custom_pretrained load_pretrained "
                                    "pretrained_cfg_for_features resolve_pretrained_cfg set_pretrained_check_hash "
                                    "set_pretrained_download_progress "
                                    "_update_default_model_kwargs=update_default_model_kwargs"}
_HELPERS = {f"{_MEANINGS}.checkpoints": "clean_state_dict load_checkpoint load_state_dict remap_state_dict "
                                        "resume_checkpoint"}
_MANIPULATE = "adapt_input_conv checkpoint checkpoint_seq flatten_modules group_modules group_parameters " \
              "group_with_matcher model_parameters named_apply named_modules named_modules_with_params " \
              "reinit_non_persistent_buffers reparameterize_model"
_PRUNE = "adapt_model_from_file adapt_model_from_string extract_layer set_layer"
_INPUT = {f"{_MEANINGS}.inputs": "get_model_args get_model_input_config get_model_traits get_pretrained_grid_size "
                                 "update_model_args update_model_input_size"}
_FEATURES = {"mvlib.features": "FeatureInfo",
             f"{_MEANINGS}.features": "FeatureDictNet FeatureGetterNet FeatureHookNet FeatureHooks FeatureListNet "
                                      "feature_take_indices"}
_TRACING = {"mvlib.layers.fx": "create_feature_extractor get_graph_node_names get_notrace_functions "
                               "get_notrace_modules is_notrace_function is_notrace_module register_notrace_function "
                               "register_notrace_module"}
_GRAPHS = {**_TRACING,
           f"{_MEANINGS}.features": "FeatureGraphNet GraphExtractNet"}
_HUB = {f"{_MEANINGS}.repositories":
        "HF_OPEN_CLIP_SAFE_WEIGHTS_NAME HF_OPEN_CLIP_WEIGHTS_NAME HF_SAFE_WEIGHTS_NAME HF_WEIGHTS_NAME "
        "check_cached_file download_cached_file download_from_hf generate_readme get_cache_dir has_hf_hub hf_split "
        "load_cfg_from_json load_custom_from_hf load_model_config_from_hf load_model_config_from_path "
        "load_state_dict_from_hf load_state_dict_from_path push_to_hf_hub save_config_for_hf save_for_hf"}

NAMES: dict[str, dict[str, str]] = {
    "": {
        "mvlib.registry": "is_model_pretrained",
        f"{_MEANINGS}.registry": "get_pretrained_cfg get_pretrained_cfg_value is_model list_models list_modules "
                                 "list_pretrained model_entrypoint",
        f"{_MEANINGS}.factory": "create_model",
        "mvlib.layers.config": "is_exportable is_scriptable set_exportable set_scriptable",
    },
    "models": {
        **_REGISTRY, **_FACTORY, **_PRETRAINED, **_BUILDER, **_HELPERS, **_INPUT, "mvlib.features": "FeatureInfo",
        **_TRACING,
        f"{_MEANINGS}.features": "FeatureDictNet FeatureGraphNet FeatureHookNet FeatureHooks FeatureListNet "
                                 "GraphExtractNet",
        f"{_MEANINGS}.modules": "adapt_input_conv adapt_model_from_string checkpoint checkpoint_seq group_modules "
                                "group_parameters model_parameters named_apply named_modules "
                                "named_modules_with_params reparameterize_model",
        f"{_MEANINGS}.repositories": "load_model_config_from_hf load_state_dict_from_hf push_to_hf_hub save_for_hf",
    },
    "models._registry": {**_REGISTRY, **_PRETRAINED},
    "models._factory": {**_FACTORY, **_PRETRAINED},
    "models._pretrained": _PRETRAINED,
    "models._builder": {**_BUILDER, **_PRETRAINED},
    "models._helpers": _HELPERS,
    "models._manipulate": {f"{_MEANINGS}.modules": _MANIPULATE},
    "models._features": _FEATURES,
    "models._features_fx": _GRAPHS,
    "models._hub": _HUB,
    "models._input": _INPUT,
    "models._prune": {f"{_MEANINGS}.modules": _PRUNE},
    "models.helpers": {**_BUILDER, **_HELPERS, f"{_MEANINGS}.modules": f"{_MANIPULATE} {_PRUNE}"},
    "version": {"mvlib.timm": "__version__"},
}

ABSENT: dict[str, dict[str, str]] = {}

FLAGS = f"{_MEANINGS}.flags"  # what a module says of itself, which its package has not
LIVE = frozenset(("data.readers.img_extensions.IMG_EXTENSIONS",))  # names whose values change

REDIRECTS: dict[str, str] = {  # an old path that timm still has: the path whose names it has
    "models.factory": "models._factory",
    "models.features": "models._features",
    "models.fx_features": "models._features_fx",
    "models.hub": "models._hub",
    "models.layers": "layers",
    "models.registry": "models._registry",
    "optim.optim_factory": "optim",
}

WARNS = {  # an old path that warns when it is imported: what to import from instead
    "models.layers": "timm.layers",
    **dict.fromkeys(("models.factory", "models.features", "models.fx_features", "models.helpers", "models.hub",
                     "models.registry"), "timm.models"),
    "optim.optim_factory": "timm.optim",
}
