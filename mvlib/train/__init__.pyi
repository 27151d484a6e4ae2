# Written by scripts/build_stubs.py.
# ruff: noqa
from . import arguments as arguments, averaging as averaging, batchnorm as batchnorm, checkpoint as checkpoint, distributed as distributed, ema as ema, engine as engine, engines as engines, evaluation as evaluation, fine_tuning as fine_tuning, messages as messages, model as model, pictures as pictures, precision as precision, recipes as recipes, report as report, run as run
from .arguments import Option, add_options, find_option, finish_arguments
from .averaging import RankedCheckpoint, average_checkpoints, choose_checkpoints, clean_checkpoint, common_facts, list_checkpoints, rank_checkpoints, write_weights
from .batchnorm import SplitBatchNorm2d, SyncBatchNormAct, convert_splitbn_model, convert_sync_batchnorm, distribute_bn
from .checkpoint import CheckpointStore, find_checkpoints, newest_checkpoint, read_checkpoint, write_checkpoint
from .distributed import World, broadcast_object, init_world, is_parallel, mean_over_ranks, sum_over_ranks
from .ema import ModelEma
from .engine import NonFiniteLossError, StepOptions, StopTraining, TrainState, train_one_epoch, validate
from .evaluation import evaluate, expand_models, fold_batch_norms, infer, read_label_lists, write_results
from .fine_tuning import FineTuned, finetune
from .messages import messages_on_terminal
from .model import average_model, build_model, prepare_model, wrap_model
from .pictures import Pictures, read_pictures
from .precision import autocast_for, keep_slow_convolutions_in_float32
from .recipes import Recipe, add_train_arguments, parse_train_arguments, read_recipe
from .report import Report, draw_curves, write_text
from .run import train
__all__ = ['CheckpointStore', 'FineTuned', 'ModelEma', 'NonFiniteLossError', 'Option', 'Pictures', 'RankedCheckpoint', 'Recipe', 'Report', 'SplitBatchNorm2d', 'StepOptions', 'StopTraining', 'SyncBatchNormAct', 'TrainState', 'World', 'add_options', 'add_train_arguments', 'autocast_for', 'average_checkpoints', 'average_model', 'broadcast_object', 'build_model', 'choose_checkpoints', 'clean_checkpoint', 'common_facts', 'convert_splitbn_model', 'convert_sync_batchnorm', 'distribute_bn', 'draw_curves', 'evaluate', 'expand_models', 'find_checkpoints', 'find_option', 'finetune', 'finish_arguments', 'fold_batch_norms', 'infer', 'init_world', 'is_parallel', 'keep_slow_convolutions_in_float32', 'list_checkpoints', 'mean_over_ranks', 'messages_on_terminal', 'newest_checkpoint', 'parse_train_arguments', 'prepare_model', 'rank_checkpoints', 'read_checkpoint', 'read_label_lists', 'read_pictures', 'read_recipe', 'sum_over_ranks', 'train', 'train_one_epoch', 'validate', 'wrap_model', 'write_checkpoint', 'write_results', 'write_text', 'write_weights']
