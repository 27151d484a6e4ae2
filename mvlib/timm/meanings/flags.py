"""What timm's modules say of the packages that are installed, and of themselves, as it is here."""

from __future__ import annotations

from importlib.util import find_spec

import torch

# Norms and mixed precision are torch's own, whether apex is installed or not.
has_apex = has_apex_rmsnorm = False
has_torch_rms_norm = True
amp = None

has_fx_feature_extraction = True
has_imagenet = has_inaturalist = has_places365 = has_qmnist = has_interpolation_mode = True  # of torchvision
has_dynamo = has_recent_pt = True  # of torch
has_dtensor = torch.distributed.is_available()
has_opt_einsum = find_spec("opt_einsum") is not None
has_iabn = find_spec("inplace_abn") is not None

DTYPE_INTERMEDIATE = torch.float32  # in which kernels of patches are resampled
