"""Fine-tuning a detector: new predictors for boxes and masks, training on a target, boxes out."""

import torch
from common import fill, images
from models_under_test import detection
from torch import nn
from torchvision.ops import MultiScaleRoIAlign

FastRCNNPredictor = detection.faster_rcnn.FastRCNNPredictor
MaskRCNNPredictor = detection.mask_rcnn.MaskRCNNPredictor
SIZES = dict(min_size=64, max_size=96)

target = {"boxes": torch.tensor([[8.0, 8, 40, 40], [20, 10, 60, 50]]), "labels": torch.tensor([1, 2]),
          "masks": torch.zeros(2, 64, 64, dtype=torch.uint8)}
target["masks"][:, 10:40, 20:40] = 1
picture = images(3, 64, 64).sigmoid()
RESULT = {}

model = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, **SIZES)
model.roi_heads.box_predictor = FastRCNNPredictor(model.roi_heads.box_predictor.cls_score.in_features, 3)
model.roi_heads.mask_predictor = MaskRCNNPredictor(model.roi_heads.mask_predictor.conv5_mask.in_channels, 16, 3)
fill(model).train()
torch.manual_seed(0)
losses = model([picture], [target])
sum(losses.values()).backward()
RESULT["mask"] = {"losses": {key: value.detach() for key, value in losses.items()},
                  "gradient": model.roi_heads.box_predictor.cls_score.weight.grad}


class Body(nn.Sequential):
    out_channels = 8


own = detection.FasterRCNN(
    Body(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU()), num_classes=2,
    rpn_anchor_generator=detection.rpn.AnchorGenerator(((16, 32),), ((0.5, 1.0),)),
    box_roi_pool=MultiScaleRoIAlign(featmap_names=["0"], output_size=3, sampling_ratio=2), **SIZES)
with torch.no_grad():
    RESULT["own"] = fill(own).eval()([picture])
