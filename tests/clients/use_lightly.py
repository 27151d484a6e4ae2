"""lightly: masked image modelling on timm's vision transformer and its blocks."""

from functools import partial

import timm
import torch
from client import Case, images, play
from lightly.models import utils
from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
from lightly.models.modules.capi_predictor_timm import CAPIPredictorTIMM
from lightly.models.modules.heads_timm import AIMPredictionHead
from lightly.models.modules.masked_causal_vision_transformer import MaskedCausalVisionTransformer

VIT = dict(img_size=64, depth=3)


def gradients(loss, model):
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True))


def masked(name="vit_tiny_patch16_224", size=64, **kwargs):
    """A model with a mask token; what it says with and without a mask, all layers', and its gradients."""
    def build():
        return MaskedVisionTransformerTIMM(timm.create_model(name, **(VIT | kwargs)))

    def answers(model):
        x = images(2, 3, size, size)
        keep, hidden = utils.random_token_mask((2, model.sequence_length), mask_ratio=0.5)
        mask = torch.zeros(2, model.sequence_length, dtype=torch.bool).scatter(1, hidden, True)
        kept = model.encode(x, idx_keep=keep)
        out, layers = model.forward_intermediates(x, mask=mask, norm=True)
        return {"kept": kept.detach(), "class": model(x).detach(), "out": out.detach(),
                "layers": [layer.detach() for layer in layers], "gradients": gradients(kept.square().mean(), model)}

    return Case(build, answers)


class MAE(torch.nn.Module):
    """Masked autoencoding, as lightly's examples put it together."""

    def __init__(self):
        super().__init__()
        vit = timm.create_model("vit_tiny_patch16_224", **VIT)
        self.backbone = MaskedVisionTransformerTIMM(vit=vit)
        self.length = self.backbone.sequence_length
        self.decoder = MAEDecoderTIMM(num_patches=vit.patch_embed.num_patches, patch_size=16, embed_dim=192,
                                      decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2)

    def forward(self, x):
        keep, mask = utils.random_token_mask((len(x), self.length), mask_ratio=0.75)
        encoded = self.decoder.embed(self.backbone.encode(images=x, idx_keep=keep))
        tokens = utils.repeat_token(self.decoder.mask_token, (len(x), self.length))
        decoded = self.decoder.decode(utils.set_at_index(tokens, keep, encoded.type_as(tokens)))
        wanted = utils.get_at_index(utils.patchify(x, 16), mask - 1)
        return torch.nn.functional.mse_loss(self.decoder.predict(utils.get_at_index(decoded, mask)), wanted)


def loss_and_gradients(model):
    loss = model(images(2, 3, 64, 64))
    return {"loss": loss.detach(), "gradients": gradients(loss, model)}


def causal(model):
    x, mask = images(2, 3, 64, 64), torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 8:] = True
    out = model.forward_features(x, mask=mask)
    return {"out": out.detach(), "gradients": gradients(out.square().mean(), model)}


@torch.no_grad()
def predicted(shape, model):
    return model(images(*shape))


@torch.no_grad()
def capi(model):
    places = torch.stack([torch.arange(16), torch.arange(16).flip(0)])
    return model(images(2, 9, 48), places[:, :9], places[:, 9:])


play("lightly", {
    "masked-vit": masked(),
    "masked-vit-dynamic": masked(dynamic_img_size=True),
    "masked-vit-registers": masked("vit_tiny_patch16_224", reg_tokens=4),
    "masked-vit-dinov2": masked("vit_small_patch14_dinov2", 56, img_size=56),
    "mae": Case(MAE, loss_and_gradients),
    "aim": Case(partial(MaskedCausalVisionTransformer, img_size=64, patch_size=16, embed_dim=48, depth=2, num_heads=3,
                        qk_norm=False, class_token=False, no_embed_class=True, global_pool="avg"), causal),
    "aim-head": Case(partial(AIMPredictionHead, input_dim=48, output_dim=12, num_blocks=2),
                     partial(predicted, (2, 16, 48))),
    "capi-predictor": Case(partial(CAPIPredictorTIMM, embed_dim=48, grid_size=4, depth=2, num_heads=3), capi),
})
