"""A backbone of the transformers library from a local folder, on a fixed grid of windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from .errors import missing_extra
from .pyramid import SimplePyramid
from .state_file import read_state
from .vit_weights import is_timm_vit, rename_vit

__all__ = ["BackboneEncoder"]

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
#: Weights that a file of the bare model lacks: norms of a detection backbone, the token of masked pretraining.
_MAY_LACK = ("hidden_states_norms.", "mask_token")


class BackboneEncoder(nn.Module):
    """A pretrained vision backbone: DINOv2 with or without registers and other plain ViTs, Swin, ConvNeXt, ...

    **Windows.** A transformer with global attention sees its whole input, so its features would change with the tile.
    This encoder cuts the image into windows of `window_px`, whose edges are multiples of it on the slide, and the
    backbone sees each alone. Tiled inference then equals untiled exactly. The price is seams: neighbours across a
    window's edge share no attention. Only the pyramid's 3x3 convolutions and the decoder read across it.

    **Levels.** A plain ViT's tokens become levels at `token_px` / 4, / 2, * 1 and * 2 by `SimplePyramid`. Where the
    patch is not `token_px` wide (14 in DINOv2), each window is resampled so that its tokens are: a window of 256 px is
    shown to it as 224 px of 16 x 16 patches. So a patch-14 model sees pixels 16/14 as large as the working mpp; read at
    0.4375 µm per pixel for a model trained at 0.5. A hierarchical backbone gives its own stages, as they are.

    Args:
        folder: a local folder with `config.json` and `model.safetensors` or `pytorch_model.bin`, as transformers saves
            them. The weights may be timm's names of a ViT, if `config.json` describes the same in DINOv2's.
        window_px: side of a window; a multiple of `token_px` and of every stride.
        strides: image pixels per map pixel of each level, finest first.
        token_px: side of a plain ViT's token in image pixels.
        blocks: for a plain ViT, after which block each level is read, counted from 1; the last for all if None (as
            ViTDet does).
        pyramid_channels: channels of each level of a plain ViT.
        frozen: keep the backbone as it is: no gradients, no dropout. The pyramid is trained.
        pretrained: read the folder's weights; else only its `config.json`.
        window_batch: windows that go through the backbone at once.

    Attributes:
        strides: image pixels per map pixel of each level.
        channels: channels of each level.
        grid_px: `window_px`.

    Raises:
        MissingExtraError: if transformers is missing.
        ValueError: if the folder holds no such backbone or whole weights, or the sizes do not fit each other.
    """

    def __init__(
        self,
        folder: str | None,
        window_px: int = 256,
        strides: Sequence[int] = (4, 8, 16, 32),
        token_px: int = 16,
        blocks: Sequence[int] | None = None,
        pyramid_channels: int = 256,
        frozen: bool = True,
        pretrained: bool = True,
        window_batch: int = 16,
    ) -> None:
        super().__init__()
        config, backbone_class = _read_config(folder)
        if not strides or sorted(set(strides)) != list(strides):
            raise ValueError(f"strides={list(strides)}: name each level's once, finest first.")
        for size in (*strides, token_px):
            if window_px % size:
                raise ValueError(
                    f"window_px={window_px} must be a multiple of token_px and every stride, so of {size}."
                )
        self.strides = tuple(strides)
        self.grid_px = window_px
        self.frozen = frozen
        self.window_batch = window_batch

        stages = list(range(1, len(config.stage_names)))  # 0 is the stem
        shapes = _shapes(backbone_class, config, stages, window_px)
        self._is_plain = len({shape[-2:] for shape in shapes}) == 1
        self._seen_px = window_px  # side of a window as the backbone sees it
        if self._is_plain:
            patch_px = getattr(config, "patch_size", token_px)
            self._seen_px = window_px // token_px * (patch_px if isinstance(patch_px, int) else patch_px[0])
            taken = _blocks_of_levels(blocks, len(stages), len(strides))
        else:
            taken = _stages_of_strides(strides, [window_px / shape[-1] for shape in shapes])
        order = sorted(set(taken))
        self._map_of_level = [order.index(stage) for stage in taken]
        config.out_indices = order
        self.backbone = _load(backbone_class, config, Path(str(folder))) if pretrained else backbone_class(config)

        widths = [shapes[stage - 1][1] for stage in taken]
        if self._is_plain:
            for stride in strides:
                if stride not in (token_px // 4, token_px // 2, token_px, 2 * token_px):
                    raise ValueError(
                        f"strides={list(strides)}: a plain ViT with token_px={token_px} gives levels at token_px / 4, "
                        "/ 2, * 1 and * 2. Change one of the two."
                    )
            self.pyramid = SimplePyramid(widths[0], [token_px / stride for stride in strides], pyramid_channels)
            widths = [pyramid_channels] * len(strides)
        self.channels = tuple(widths)
        self._freeze()

    def train(self, mode: bool = True) -> BackboneEncoder:
        """As usual, but a frozen backbone stays in evaluation, and batch normalisation keeps its statistics."""
        super().train(mode)
        for module in self.backbone.modules():
            if self.frozen or isinstance(module, nn.BatchNorm2d):
                module.training = False
        return self

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Features of each level, finest first.

        Args:
            image: (B, 3, H, W); H and W multiples of `grid_px`.

        Returns:
            One (B, channels[l], H / strides[l], W / strides[l]) per level.
        """
        rows, columns = (size // self.grid_px for size in image.shape[-2:])
        windows = rearrange(image, "b c (i h) (j w) -> (b i j) c h w", i=rows, j=columns)
        parts = [self._see(some) for some in windows.split(self.window_batch)]
        maps = [
            rearrange(torch.cat(of_level), "(b i j) c h w -> b c (i h) (j w)", i=rows, j=columns)
            for of_level in zip(*parts, strict=True)
        ]
        maps = [maps[index] for index in self._map_of_level]
        return self.pyramid(maps) if self._is_plain else maps

    def input_margin_px(self, level: int, margin_px: int) -> int:
        """See `Encoder`."""
        if self._is_plain:
            margin_px += self.strides[level]  # the pyramid's 3x3
        return math.ceil(margin_px / self.grid_px) * self.grid_px

    def _see(self, windows: torch.Tensor) -> Sequence[torch.Tensor]:
        """Windows (N, 3, window_px, window_px) -> the backbone's maps."""
        if self._seen_px != self.grid_px:
            size = (self._seen_px, self._seen_px)
            windows = F.interpolate(windows, size, mode="bilinear", antialias=True, align_corners=False)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.backbone(windows).feature_maps

    def _freeze(self) -> None:
        """Stop gradients of a frozen backbone, or of what no level depends on (mask token, blocks after the last)."""
        if self.frozen:
            self.backbone.requires_grad_(False)
            return
        self.train(False)
        image = torch.zeros(1, 3, self.grid_px, self.grid_px)
        torch.stack([x.sum() for x in self._see(image)]).sum().backward()
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        self.train()


def _read_config(folder: str | None) -> tuple[Any, Any]:
    """A folder's configuration and the class of its backbone."""
    try:
        from transformers import MODEL_FOR_BACKBONE_MAPPING, AutoConfig
    except ImportError as error:
        raise missing_extra("A backbone of the transformers library", "backbone") from error
    if folder is None or not (Path(folder) / "config.json").is_file():
        where = "folder is not set" if folder is None else f"There is no config.json in {Path(folder).absolute()}"
        raise ValueError(
            f"{where}: give a local folder with config.json and weights as transformers saves them, "
            "--set network_def#encoder#folder=/path/to/model (docs/guide/encoders.md)."
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder}/config.json describes no model of this transformers: {error}") from error
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
        raise ValueError(
            f"{folder} holds a {config.model_type!r}, which transformers has no backbone of. DINOv2, DINOv2 with "
            "registers, DINOv3, BEiT, Swin and ConvNeXt are among those that it has."
        )
    if hasattr(config, "reshape_hidden_states"):
        config.reshape_hidden_states = True
    return config, MODEL_FOR_BACKBONE_MAPPING[type(config)]


def _shapes(backbone_class: Any, config: Any, stages: Sequence[int], side_px: int) -> list[tuple[int, ...]]:
    """Shapes of all stages' maps of one window, without computing anything."""
    config.out_indices = list(stages)
    try:
        with torch.device("meta"):
            backbone = backbone_class(config).eval()
            image = torch.zeros(1, 3, side_px, side_px)
        with torch.no_grad():
            return [tuple(x.shape) for x in backbone(image).feature_maps]
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"The backbone takes no image of {side_px} x {side_px} px; change window_px: {error}"
        ) from error


def _blocks_of_levels(blocks: Sequence[int] | None, n_blocks: int, n_levels: int) -> list[int]:
    if blocks is None:
        return [n_blocks] * n_levels
    if len(blocks) != n_levels or not set(blocks) <= set(range(1, n_blocks + 1)):
        raise ValueError(f"blocks={list(blocks)}: name one of 1 to {n_blocks} for each of the {n_levels} strides.")
    return list(blocks)


def _stages_of_strides(strides: Sequence[int], there: Sequence[float]) -> list[int]:
    """The last stage of each stride, counted from 1."""
    if not set(strides) <= set(there):
        known = sorted({int(stride) for stride in there})
        raise ValueError(f"strides={list(strides)}: this backbone has stages at {known}; choose from them.")
    return [max(i for i, found in enumerate(there, 1) if found == stride) for stride in strides]


def _load(backbone_class: Any, config: Any, folder: Path) -> nn.Module:
    """The backbone with a folder's weights, all of them."""
    from transformers.utils import logging

    file = next((folder / name for name in _WEIGHT_FILES if (folder / name).is_file()), None)
    options: dict[str, Any] = {"config": config, "dtype": torch.float32, "output_loading_info": True}
    options |= {"ignore_mismatched_sizes": True, "local_files_only": True}  # checked below
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        if file is None:  # in several files
            net, about = backbone_class.from_pretrained(str(folder), **options)
        else:
            state = read_state(file)
            if is_timm_vit(state):
                state = rename_vit(state, gated=bool(getattr(config, "use_swiglu_ffn", False)))
            net, about = backbone_class.from_pretrained(None, state_dict=state, **options)
    except OSError as error:
        raise ValueError(f"{folder} has a config.json and neither {' nor '.join(_WEIGHT_FILES)}. Add it.") from error
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(name for name in about["missing_keys"] if not any(part in name for part in _MAY_LACK))
    unlike = sorted(str(key[0] if isinstance(key, tuple) else key) for key in about["mismatched_keys"])
    for names, what in ((unlike, "has in another shape"), (missing, "lacks")):
        if names:
            raise ValueError(
                f"{file or folder} {what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if names[3:] else ''}: "
                "config.json describes another model than the weights. Give both of one."
            )
    return net
