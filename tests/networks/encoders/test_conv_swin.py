from __future__ import annotations

import pytest
import torch

from networks import ConvSwinEncoder

pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `encoders` is not installed")


def encoder(stem_stride: int = 8, **kw: object) -> ConvSwinEncoder:
    torch.manual_seed(0)
    return ConvSwinEncoder(stem_stride, embed_dim=12, num_heads=(1, 2), window_size=4, **kw)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stem_stride", "strides", "grid_px"),
    [(4, (4, 8), 32), (8, (4, 8, 16), 64), (16, (4, 8, 16, 32), 128)],
)
def test_levels_are_the_stem_and_then_the_stages(stem_stride: int, strides: tuple[int, ...], grid_px: int) -> None:
    net = encoder(stem_stride).eval()
    assert (net.strides, net.grid_px) == (strides, grid_px)
    with torch.no_grad():
        features = net(torch.randn(1, 3, grid_px, 2 * grid_px))
    expected = [(1, c, grid_px // s, 2 * grid_px // s) for s, c in zip(strides, net.channels, strict=True)]
    assert [tuple(f.shape) for f in features] == expected


def test_every_parameter_is_trained() -> None:
    net = encoder()
    sum(f.square().sum() for f in net(torch.randn(1, 3, 64, 64))).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_wrong_stems_are_refused() -> None:
    with pytest.raises(ValueError, match="4, 8 or 16"):
        encoder(32)
    with pytest.raises(ValueError, match="one each per stage"):
        encoder(depths=(2, 2, 2))
