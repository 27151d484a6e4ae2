# Written by scripts/build_stubs.py.
# ruff: noqa
from . import benchmark as benchmark, builders as builders, catalog as catalog, compare as compare, data as data, engines as engines, enums as enums, errors as errors, factory as factory, features as features, hub as hub, inference as inference, layers as layers, loading as loading, loss as loss, models as models, names as names, optim as optim, optimization as optimization, publish as publish, query as query, registry as registry, scheduler as scheduler, timm as timm, train as train, weights as weights
from .benchmark import benchmark_models
from .builders import get_model, get_model_builder, get_model_weights
from .compare import compare_models
from .data import create_dataset, create_loader, create_transform, resolve_data_config, resolve_model_data_config
from .engines.exporter import ExportReport, export
from .enums import Weights, WeightsEnum, get_weight
from .errors import BadImageError, CheckpointError, ChecksumError, ConfigError, DataError, DownloadError, ExportError, MissingPackageError, MvlibError, NoAnswerError, NotCachedError, UnknownNameError, WeightsError
from .factory import create_model
from .features import FeatureExtractor
from .loading import load_checkpoint, read_state_dict
from .models.base import ImageModel
from .names import parse_model_name
from .optim import create_optimizer_v2, list_optimizers
from .optimization import optimize
from .publish import push_to_hub, save_for_hub
from .query import search
from .registry import get_arch_name, get_arch_pretrained_cfgs, get_deprecated_models, get_pretrained_cfg, get_pretrained_cfg_value, is_model, is_model_in_modules, is_model_pretrained, list_models, list_modules, list_pretrained, model_entrypoint, register_catalog, register_model, register_model_deprecations, split_model_name_tag
from .scheduler import create_scheduler_v2
from .weights import WeightsConfig
__version__: str
__all__ = ['BadImageError', 'CheckpointError', 'ChecksumError', 'ConfigError', 'DataError', 'DownloadError', 'ExportError', 'ExportReport', 'FeatureExtractor', 'ImageModel', 'MissingPackageError', 'MvlibError', 'NoAnswerError', 'NotCachedError', 'UnknownNameError', 'Weights', 'WeightsConfig', 'WeightsEnum', 'WeightsError', 'benchmark_models', 'compare_models', 'create_dataset', 'create_loader', 'create_model', 'create_optimizer_v2', 'create_scheduler_v2', 'create_transform', 'export', 'get_arch_name', 'get_arch_pretrained_cfgs', 'get_deprecated_models', 'get_model', 'get_model_builder', 'get_model_weights', 'get_pretrained_cfg', 'get_pretrained_cfg_value', 'get_weight', 'is_model', 'is_model_in_modules', 'is_model_pretrained', 'list_models', 'list_modules', 'list_optimizers', 'list_pretrained', 'load_checkpoint', 'model_entrypoint', 'optimize', 'parse_model_name', 'push_to_hub', 'read_state_dict', 'register_catalog', 'register_model', 'register_model_deprecations', 'resolve_data_config', 'resolve_model_data_config', 'save_for_hub', 'search', 'split_model_name_tag', '__version__']
