"""A classifier for many classes: queries, one for a group of classes, attend to a map's positions.

Source: Ridnik et al., "ML-Decoder: Scalable and Versatile Classification Head", 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import get_act_fn

__all__ = ["MLDecoder", "TransformerDecoderLayerOptimal", "add_ml_decoder_head"]


class TransformerDecoderLayerOptimal(nn.Module):
    """A decoder's layer without self-attention: queries attend to a memory, then go through two linear layers.

    Shapes: (N, B, d_model), (M, B, d_model) -> (N, B, d_model). Keys `norm1`, `multihead_attn`, `linear1`, `linear2`,
    `norm2`, `norm3`. Masks are without effect.

    Args:
        d_model: Channels.
        nhead: Heads.
        dim_feedforward: Channels between the linear layers.
        dropout: Rate of all dropouts.
        activation: Name of the activation, or a function.
        layer_norm_eps: Of the norms.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int = 8,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = "relu",
        layer_norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model, eps=layer_norm_eps)
        self.dropout, self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(dropout) for _ in range(4))
        self.multihead_attn = nn.MultiheadAttention(d_model, nhead, dropout=dropout)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm2 = nn.LayerNorm(d_model, eps=layer_norm_eps)
        self.norm3 = nn.LayerNorm(d_model, eps=layer_norm_eps)
        self.activation: Any = get_act_fn(activation)

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None, memory_key_padding_mask: Tensor | None = None, **_: Any,
    ) -> Tensor:
        tgt = self.norm1(tgt + self.dropout1(tgt))
        tgt = self.norm2(tgt + self.dropout2(self.multihead_attn(tgt, memory, memory)[0]))
        return self.norm3(tgt + self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(tgt))))))


class MLDecoder(nn.Module):
    """Classify a map, or tokens, by queries that each serve a group of classes.

    Shapes: (B, C, H, W) or (B, N, C) -> (B, num_classes). Keys `embed_standart`, `decoder.layers.0`, `query_embed`
    (random and fixed), `duplicate_pooling`, `duplicate_pooling_bias`.

    Args:
        num_classes: Outputs.
        num_of_groups: Queries, no more than classes; 100 for -1.
        decoder_embedding: Channels of the decoder; 768 for -1.
        initial_num_features: C.
    """

    def __init__(
        self, num_classes: int, num_of_groups: int = -1, decoder_embedding: int = 768, initial_num_features: int = 2048
    ) -> None:
        super().__init__()
        count = min(100 if num_of_groups < 0 else num_of_groups, num_classes)
        width = 768 if decoder_embedding < 0 else decoder_embedding
        self.embed_len_decoder = count
        self.num_classes = num_classes
        self.duplicate_factor = -(-num_classes // count)  # classes of a query
        self.embed_standart = nn.Linear(initial_num_features, width)
        self.decoder: Any = nn.Module()  # torch's own asks its layers for self-attention
        self.decoder.layers = nn.ModuleList([TransformerDecoderLayerOptimal(width)])
        self.query_embed = nn.Embedding(count, width).requires_grad_(False)
        self.duplicate_pooling = nn.Parameter(torch.empty(count, width, self.duplicate_factor))
        self.duplicate_pooling_bias = nn.Parameter(torch.empty(num_classes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_normal_(self.duplicate_pooling)
        nn.init.zeros_(self.duplicate_pooling_bias)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2) if x.dim() == 4 else x
        memory = F.relu(self.embed_standart(tokens)).transpose(0, 1)
        queries = self.query_embed.weight.unsqueeze(1).expand(-1, x.shape[0], -1)
        groups = self.decoder.layers[0](queries, memory) @ self.duplicate_pooling  # (groups, B, classes of each)
        return groups.transpose(0, 1).flatten(1)[:, :self.num_classes] + self.duplicate_pooling_bias


def add_ml_decoder_head(model: Any) -> Any:
    """Put an `MLDecoder` in the place of a model's pooling and classifier, in place. Returns the model.

    Raises:
        ValueError: The model has neither `fc` nor `classifier` beside `global_pool`, nor is it a RegNet or TResNet.
    """
    head = MLDecoder(model.num_classes, initial_num_features=model.num_features)
    name = next((name for name in ("fc", "classifier") if hasattr(model, "global_pool") and hasattr(model, name)), None)
    if name is not None:
        model.global_pool = nn.Identity()
    elif type(model).__name__ in ("RegNet", "TResNet"):
        name = "head"
    else:
        raise ValueError(f"an ML-Decoder does not fit {type(model).__name__}: it takes models with a global_pool and "
                         f"fc or classifier")
    setattr(model, name, head)
    if hasattr(model, "drop_rate"):
        model.drop_rate = 0  # the decoder has its own
    return model
