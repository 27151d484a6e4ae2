from .case import Case

_MAP = [(2, 16, 9, 8)]

CASES = [
    Case("models.hgnet.LearnableAffineBlock", (0.5, 2.0), {}, _MAP),
    Case("models.hgnet.ConvBNAct", (16, 12, 3, 2, 4), dict(use_lab=True), _MAP),
    Case("models.hgnet.ConvBNAct", (16, 12, 3), dict(use_act=False, use_lab=True), _MAP),
    Case("models.hgnet.LightConvBNAct", (16, 12, 5), dict(use_lab=True), _MAP),
    Case("models.hgnet.EseModule", (16,), {}, _MAP),
    Case("models.hgnet.StemV1", ([16, 8, 12],), {}, _MAP),
    Case("models.hgnet.StemV2", (16, 8, 12), dict(use_lab=True), _MAP),
    Case("models.hgnet.HighPerfGpuBlock", (16, 8, 16, 2), dict(residual=True), _MAP),
    Case("models.hgnet.HighPerfGpuBlock", (16, 8, 12, 2, 5), dict(light_block=True, use_lab=True, agg="se"), _MAP),
    Case("models.hgnet.HighPerfGpuStage", (16, 8, 12, 2, 2), dict(drop_path=[0.0, 0.1]), _MAP),
    Case("models.hgnet.HighPerfGpuStage", (16, 8, 12, 2, 2), dict(downsample=False, agg="se", drop_path=0.1), _MAP),
    Case("models.hgnet.ClassifierHead", (16, 3), dict(hidden_size=8, use_lab=True), _MAP),
    Case("models.hgnet.ClassifierHead", (16, 0, ""), dict(hidden_size=None), _MAP),
]
