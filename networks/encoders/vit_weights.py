"""Weights of timm's plain vision transformers under the names of transformers' DINOv2."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

__all__ = ["is_timm_vit", "rename_vit"]

_ANCHOR = "blocks.0.attn.qkv.weight"
_RULES = [
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^reg_token$", "embeddings.register_tokens"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^blocks\.", "encoder.layer."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"^norm\.", "layernorm."),
]
_GATED_RULES = [(r"\.mlp\.fc1\.", ".mlp.weights_in."), (r"\.mlp\.fc2\.", ".mlp.weights_out.")]


def is_timm_vit(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether the names are timm's."""
    return _ANCHOR in state


def rename_vit(state: Mapping[str, torch.Tensor], gated: bool) -> dict[str, torch.Tensor]:
    """A timm ViT with class token, and perhaps registers, named as in transformers' files of DINOv2.

    Where only patches have positions (timm's `no_embed_class`, as in UNI2-h), the class token's is zero.

    Args:
        state: timm's state dict.
        gated: whether the MLP is SwiGLU, gate and value packed in `mlp.fc1` in this order (timm's `SwiGLUPacked`).

    Raises:
        ValueError: if it has no class token.
    """
    rules = [*_RULES, *(_GATED_RULES if gated else [])]
    renamed: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if name == "pos_embed" and _is_square(value.shape[1]):
            value = torch.cat([torch.zeros_like(value[:, :1]), value], dim=1)
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        if ".attn.qkv." in name:
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                # A copy, or saving one would save all three.
                renamed[name.replace(".attn.qkv.", f".attention.attention.{part}.")] = rows.clone()
        else:
            renamed[name] = value
    if "embeddings.cls_token" not in renamed:
        raise ValueError("The vision transformer has no class token (`cls_token`), which DINOv2's form needs.")
    width = renamed["embeddings.cls_token"].shape[-1]
    renamed.setdefault("embeddings.mask_token", torch.zeros(1, width))  # of pretraining alone
    return renamed


def _is_square(number: int) -> bool:
    return round(number**0.5) ** 2 == number
