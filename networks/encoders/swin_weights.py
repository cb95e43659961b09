"""Weights of other libraries' Swin Transformers under the names of `SwinEncoder`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch

__all__ = ["SwinShape", "rename_swin", "swin_shape"]

#: A key that every Swin has, by the library that named it; a wrapper may put a prefix before it.
_TABLE = "relative_position_bias_table"
_TIMM_ANCHOR = f"layers.0.blocks.0.attn.{_TABLE}"
_TRANSFORMERS_ANCHOR = re.compile(
    r"(?P<prefix>.*?)encoder\.layers\.0\.blocks\.0\.attention\..*relative_position_bias_table"
)

#: The original repository's and timm's names; `layers_0` is timm's with `features_only`.
_FROM_TIMM = [
    (r"^layers_(\d+)\.", r"layers.\1."),
    (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
    (r"^norm(\d)\.", r"norms.\1."),
    (r"^norm\.", r"norms.last."),
]
#: The transformers library's, in its files and, since version 5, in memory.
_FROM_TRANSFORMERS = [
    (r"^swin\.", ""),  # a saved backbone has it before its last norm alone
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.layers\.(\d+)\.downsample\.", r"downsamples.\1."),
    (r"^encoder\.layers\.", "layers."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(self\.)?(relative_position_bias\.)?relative_position_bias_table$", f".attn.{_TABLE}"),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.(self\.query|q_proj)\.", ".attn.0."),
    (r"\.attention\.(self\.key|k_proj)\.", ".attn.1."),
    (r"\.attention\.(self\.value|v_proj)\.", ".attn.2."),
    (r"\.(intermediate\.dense|mlp\.fc1)\.", ".mlp.linear1."),
    (r"\.(output\.dense|mlp\.fc2)\.", ".mlp.linear2."),
    (r"^layernorm\.", "norms.last."),
]
#: Buffers that follow from the shape, and what is no part of the encoder.
_LEFT_OUT = re.compile(r"(relative_position_index|attn_mask)$|^(head|classifier|pooler|decoder)\.|mask_token$")


class SwinShape(NamedTuple):
    """What decides the shapes of a Swin's weights."""

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int
    patch_size: int

    def __str__(self) -> str:
        return ", ".join(
            f"{name}={list(value) if isinstance(value, tuple) else value}" for name, value in self._asdict().items()
        )


def rename_swin(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A Swin's weights named as in `SwinEncoder`.

    Query, key and value are fused. Merging keeps its columns: MONAI's 2-D `PatchMergingV2` stacks its four neighbours
    in the original's order, (row, column) = (0,0), (1,0), (0,1), (1,1). `norms` hold the norms of a detection backbone
    if the file has them, else the last stage's alone.

    Args:
        state: as saved by timm, the original repository or transformers, under any prefix.

    Raises:
        ValueError: if it is no Swin Transformer of the first version, or has absolute position embeddings.
    """
    names = [name.replace("layers_", "layers.") for name in state]
    timm = next((name for name in names if name.endswith(_TIMM_ANCHOR)), None)
    transformers = next((match for name in names if (match := _TRANSFORMERS_ANCHOR.fullmatch(name))), None)
    if timm is None and transformers is None:
        some = ", ".join(list(state)[:3]) or "nothing"
        raise ValueError(
            f"holds no Swin Transformer: it has {some}, and no {_TIMM_ANCHOR} (Swin V2 has none either). "
            "Give a Swin of the first version as timm or transformers save it."
        )
    if timm is not None:
        prefix, rules = timm.removesuffix(_TIMM_ANCHOR), _FROM_TIMM
    else:
        assert transformers is not None
        prefix, rules = transformers["prefix"], _FROM_TRANSFORMERS
    found: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        # The norms of a backbone of transformers stand beside the model, not in it.
        stage = re.search(r"hidden_states_norms\.stage(\d+)\.(\w+)$", name)
        if stage:
            found[f"norms.{int(stage[1]) - 1}.{stage[2]}"] = value
        elif name.startswith(prefix) and not _LEFT_OUT.search(name.removeprefix(prefix)):
            name = name.removeprefix(prefix)
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            found[name] = value
    if any("absolute_pos_embed" in name or "position_embeddings" in name for name in found):
        raise ValueError(
            "has absolute position embeddings, with which a slide's value would depend on where its tile begins. "
            "Give a Swin without them (timm: ape=False)."
        )
    return _number_last_norm(_fuse_qkv(_downsamples_by_stage(found)))


def _downsamples_by_stage(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`layers.i.downsample` ends stage i in the original and begins it in timm since 0.9."""
    starts_stage = not any(name.startswith("layers.0.downsample.") for name in found)

    def rename(match: re.Match[str]) -> str:
        return f"downsamples.{int(match[1]) - starts_stage}."

    return {re.sub(r"^layers\.(\d+)\.downsample\.", rename, name): value for name, value in found.items()}


def _fuse_qkv(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    fused = {name: value for name, value in found.items() if not re.search(r"\.attn\.[012]\.", name)}
    for name in found:
        if ".attn.0." in name:
            parts = [found.get(name.replace(".attn.0.", f".attn.{i}.")) for i in range(3)]
            if all(part is not None for part in parts):
                fused[name.replace(".attn.0.", ".attn.qkv.")] = torch.cat([p for p in parts if p is not None])
    return fused


def _number_last_norm(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The one norm after all stages is the last stage's, unless each stage has its own."""
    last = 1 + max(int(match[1]) for name in found if (match := re.match(r"layers\.(\d+)\.", name)))
    return {
        name.replace("norms.last.", f"norms.{last - 1}."): value
        for name, value in found.items()
        if not (name.startswith("norms.last.") and name.replace("last", str(last - 1)) in found)
    }


def swin_shape(renamed: Mapping[str, torch.Tensor]) -> SwinShape:
    """The shape of what `rename_swin` gave.

    Raises:
        ValueError: if the patch embedding is not a single convolution.
    """
    blocks = [(int(m[1]), int(m[2])) for name in renamed if (m := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name))]
    stages = 1 + max(stage for stage, _ in blocks)
    projection = renamed.get("patch_embed.proj.weight")
    if projection is None:
        raise ValueError(
            "has no patch_embed.proj.weight: its patch embedding is not one convolution (CTransPath's is a "
            "convolutional stem), which this encoder has not. Give a plain Swin."
        )
    tables = [renamed[f"layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in range(stages)]
    return SwinShape(
        embed_dim=projection.shape[0],
        depths=tuple(1 + max(block for s, block in blocks if s == stage) for stage in range(stages)),
        num_heads=tuple(table.shape[1] for table in tables),
        window_size=(math.isqrt(tables[0].shape[0]) + 1) // 2,
        patch_size=projection.shape[-1],
    )
