"""`timm.utils`, `timm.task`, `timm.loss`, `timm.optim` and `timm.scheduler`. Imports no torch."""

from __future__ import annotations

from .core import FLAGS as _FLAGS

_UTILS = "mvlib.timm.meanings.utils"
_INSPECTION = "mvlib.timm.meanings.inspection"
_TASKS = "mvlib.timm.meanings.tasks"
_SCHEDULER = "mvlib.scheduler.scheduler"
_ADAPTIVE = "mvlib.optim.adaptive"
_MOMENTUM = "mvlib.optim.momentum"

NAMES: dict[str, dict[str, str]] = {
    "utils.agc": {"mvlib.optim.clip": "adaptive_clip_grad unitwise_norm"},
    "utils.attention_extract": {_INSPECTION: "AttentionExtract"},
    "utils.checkpoint_saver": {
        "mvlib.timm.meanings.saver": "CheckpointSaver load_checkpoint_metadata",
        _INSPECTION: "get_state_dict unwrap_model",
    },
    "utils.clip_grad": {"mvlib.optim.clip": "dispatch_clip_grad=clip_grad adaptive_clip_grad"},
    "utils.cuda": {_UTILS: "ApexScaler NativeScaler", "mvlib.optim.clip": "dispatch_clip_grad=clip_grad",
                   _FLAGS: "amp has_apex"},
    "utils.decay_batch": {_UTILS: "check_batch_size_retry decay_batch_step"},
    "utils.distributed": {
        _UTILS: "distribute_bn init_distributed_device init_distributed_device_so is_distributed_env is_global_primary "
                "is_local_primary is_primary reduce_tensor world_info_from_env",
        _INSPECTION: "unwrap_model",
    },
    "utils.jit": {_UTILS: "set_jit_fuser set_jit_legacy"},
    "utils.log": {_UTILS: "FormatterNoInfo setup_default_logging"},
    "utils.metrics": {_UTILS: "AverageMeter accuracy"},
    "utils.misc": {_UTILS: "ParseKwargs add_bool_arg", "mvlib.names": "natural_key"},
    "utils.model": {
        _INSPECTION: "ActivationStatsHook avg_ch_var avg_ch_var_residual avg_sq_ch_mean extract_spp_stats freeze "
                     "get_state_dict unfreeze unwrap_model",
        "mvlib.timm.meanings.ema": "ModelEma",
        "mvlib.timm.meanings.modules": "reparameterize_model",
        "mvlib.layers.batch_norm": "FrozenBatchNormAct2d freeze_batch_norm_2d unfreeze_batch_norm_2d",
    },
    "utils.model_ema": {"mvlib.timm.meanings.ema": "ModelEma ModelEmaV2 ModelEmaV3"},
    "utils.random": {_UTILS: "random_seed"},
    "utils.summary": {_UTILS: "get_outdir trim_summary update_summary"},

    "task": {"mvlib.loss.factory": "LOSS_TYPES MULTI_LABEL_LOSS_TYPES create_classification_loss"},
    "task._helpers": {
        _TASKS: "load_task_ema_checkpoint resume_task_checkpoint",
        "mvlib.timm.meanings.checkpoints": "clean_state_dict",
    },
    "task.classification": {
        _TASKS: "ClassificationTask MultiLabelClassificationTask TrainingTask resolve_classification_loss",
        "mvlib.loss.factory": "create_classification_loss",
    },
    "task.distillation": {
        _TASKS: "DistillationTeacher FeatureDistillationTask FeatureDistillationTrainableModule LogitDistillationTask "
                "TrainingTask resolve_classification_loss",
        _INSPECTION: "unwrap_model",
        "mvlib.timm.meanings.factory": "create_model",
        "mvlib.timm.meanings.modules": "group_parameters",
    },
    "task.evaluator": {
        "mvlib.timm.meanings.evaluator": "ClassificationEvaluator MultiLabelClassificationEvaluator "
                                         "evaluation_sample_limit",
    },
    "task.task": {
        _TASKS: "TrainingTask", _INSPECTION: "get_state_dict unwrap_model",
        "mvlib.timm.meanings.ema": "ModelEmaV3",
    },
    "task.token_distillation": {
        _TASKS: "DistillationTeacher TokenDistillationTask TrainingTask resolve_classification_loss",
        _INSPECTION: "unwrap_model",
    },

    "loss._loss_factory": {"mvlib.loss.factory": "LOSS_TYPES MULTI_LABEL_LOSS_TYPES create_classification_loss"},
    "loss.asymmetric_loss": {"mvlib.loss.asymmetric": "AsymmetricLossMultiLabel AsymmetricLossSingleLabel"},
    "loss.binary_cross_entropy": {"mvlib.loss.binary": "BinaryCrossEntropy"},
    "loss.class_weights": {
        "mvlib.loss.class_weights": "CLASS_WEIGHT_METHODS CLASS_WEIGHT_METHOD_KINDS compute_class_weights "
                                    "load_class_stats load_class_weights resolve_class_weights",
    },
    "loss.cross_entropy": {"mvlib.loss.cross_entropy": "LabelSmoothingCrossEntropy SoftTargetCrossEntropy"},
    "loss.distribution_balanced_loss": {"mvlib.loss.multi_label": "DistributionBalancedLoss"},
    "loss.jsd": {"mvlib.loss.cross_entropy": "JsdCrossEntropy LabelSmoothingCrossEntropy"},
    "loss.poly_loss": {"mvlib.loss.poly": "PolyBinaryCrossEntropy PolyCrossEntropy"},
    "loss.two_way_loss": {"mvlib.loss.multi_label": "TwoWayLoss"},
    "loss.zlpr_loss": {"mvlib.loss.multi_label": "ZlprLoss"},

    "optim": {"mvlib.optim.registry": "OptimInfo get_optimizer_class get_optimizer_info list_optimizers"},
    "optim._optim_factory": {
        "mvlib.optim.factory": "create_optimizer create_optimizer_v2 optimizer_kwargs",
        "mvlib.optim.registry": "OptimInfo get_optimizer_class get_optimizer_info list_optimizers",
        "mvlib.timm.meanings.optim": "OptimizerCallable OptimizerRegistry default_registry",
    },
    "optim._param_groups": {
        "mvlib.optim.param_groups": "auto_group_layers group_parameters param_groups_layer_decay "
                                    "param_groups_weight_decay",
    },
    "optim._types": {"mvlib.timm.meanings.optim": "OptimType OptimizerCallable ParamsT"},
    "optim.adabelief": {_ADAPTIVE: "AdaBelief"},
    "optim.adafactor": {"mvlib.optim.adafactor": "Adafactor"},
    "optim.adafactor_bv": {"mvlib.optim.adafactor": "AdafactorBigVision"},
    "optim.adahessian": {"mvlib.optim.second_order": "Adahessian"},
    "optim.adamp": {_ADAPTIVE: "AdamP"},
    "optim.adamw": {_ADAPTIVE: "AdamWLegacy"},
    "optim.adan": {_ADAPTIVE: "Adan"},
    "optim.adopt": {_ADAPTIVE: "Adopt"},
    "optim.kron": {"mvlib.optim.second_order": "Kron", _FLAGS: "has_dynamo has_opt_einsum"},
    "optim.lamb": {_ADAPTIVE: "Lamb"},
    "optim.laprop": {_ADAPTIVE: "LaProp"},
    "optim.lars": {_MOMENTUM: "Lars"},
    "optim.lion": {_MOMENTUM: "Lion"},
    "optim.lookahead": {"mvlib.optim.lookahead": "Lookahead"},
    "optim.madgrad": {_MOMENTUM: "MADGRAD"},
    "optim.mars": {_ADAPTIVE: "Mars"},
    "optim.muon": {"mvlib.optim.muon": "Muon NSCoeff", _FLAGS: "has_dtensor"},
    "optim.nadam": {_ADAPTIVE: "NAdamLegacy"},
    "optim.nadamw": {_ADAPTIVE: "NAdamW"},
    "optim.nvnovograd": {_ADAPTIVE: "NvNovoGrad"},
    "optim.radam": {_ADAPTIVE: "RAdamLegacy"},
    "optim.rmsprop_tf": {_MOMENTUM: "RMSpropTF"},
    "optim.sgdp": {_MOMENTUM: "SGDP"},
    "optim.sgdw": {_MOMENTUM: "SGDW", _FLAGS: "has_recent_pt"},

    "scheduler.cosine_lr": {_SCHEDULER: "CosineLRScheduler Scheduler"},
    "scheduler.multistep_lr": {_SCHEDULER: "MultiStepLRScheduler Scheduler"},
    "scheduler.plateau_lr": {_SCHEDULER: "PlateauLRScheduler Scheduler"},
    "scheduler.poly_lr": {_SCHEDULER: "PolyLRScheduler Scheduler"},
    "scheduler.scheduler": {_SCHEDULER: "Scheduler"},
    "scheduler.scheduler_factory": {
        "mvlib.scheduler.factory": "create_scheduler create_scheduler_v2 scheduler_kwargs",
        _SCHEDULER: "CosineLRScheduler MultiStepLRScheduler PlateauLRScheduler PolyLRScheduler StepLRScheduler "
                    "TanhLRScheduler WSDLRScheduler",
    },
    "scheduler.step_lr": {_SCHEDULER: "Scheduler StepLRScheduler"},
    "scheduler.tanh_lr": {_SCHEDULER: "Scheduler TanhLRScheduler"},
    "scheduler.wsd_lr": {_SCHEDULER: "Scheduler WSDLRScheduler"},
}

ABSENT: dict[str, dict[str, str]] = {
    "parts of timm's own optimizers": {"optim._helpers": ""},
    "`mvlib export` writes and checks such files": {"utils.onnx": ""},
    "timm's step as a function, without the class: take the class": {
        "optim.adabelief": "adabelief", "optim.adamw": "adamw", "optim.adopt": "adopt", "optim.lamb": "lamb",
        "optim.laprop": "laprop", "optim.lars": "lars", "optim.lion": "lion", "optim.muon": "muon adamuon",
        "optim.nadamw": "nadamw", "optim.rmsprop_tf": "rmsprop_tf", "optim.sgdw": "sgdw",
    },
    "a step of the optimizer's own arithmetic, which is ours here": {
        "optim.adamp": "projection", "optim.sgdp": "projection", "optim.adan": "MultiTensorApply",
        "optim.kron": "precond_update_prob_schedule safe_flatten",
        "optim.muon": "MUON_EPS DEFAULT_NS_STEPS scale_eps_for_ns zeropower_via_newtonschulz get_lr_scale "
                      "get_adamuon_lr_scale reshape_for_muon resolve_ns_coefficients",
    },
}
