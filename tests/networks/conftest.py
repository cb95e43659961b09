from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from networks import PixNet, SwinEncoder


@pytest.fixture
def scramble() -> Callable[[nn.Module], nn.Module]:
    """Give a network weights and statistics under which every part of it matters, in evaluation and float64."""

    def apply(net: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        for name, parameter in net.named_parameters():
            std = 1.0 if "relative_position" in name else 1.5 / max(parameter[0].numel(), 1) ** 0.5
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=std, generator=generator)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, generator=generator)
                nn.init.uniform_(module.running_var, 0.5, 2, generator=generator)
        return net.double().eval()

    return apply


@pytest.fixture
def tiny_pixnet() -> Callable[..., PixNet]:
    """A small PixNet of `stages` stages."""

    def build(
        stages: int = 3, window_size: int = 8, head: str = "linear", n_genes: int = 5, fusion: str = "safb"
    ) -> PixNet:
        torch.manual_seed(0)
        encoder = SwinEncoder(
            embed_dim=12,
            depths=(2,) * stages,
            num_heads=(1, 2, 4, 8)[:stages],
            window_size=window_size,
            drop_path_rate=0.0,
        )
        return PixNet(n_genes, encoder, (12, 12, 16, 16)[:stages], head, n_programs=6, fusion=fusion)

    return build
