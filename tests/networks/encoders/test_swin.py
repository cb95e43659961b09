from __future__ import annotations

import pytest
import torch

from networks.encoders.swin import SwinEncoder, swin_margin_px


@pytest.mark.parametrize("stages", [1, 3, 4])
def test_every_stage_is_returned_at_its_stride(stages: int) -> None:
    encoder = SwinEncoder(embed_dim=12, depths=(2,) * stages, num_heads=(1, 2, 4, 8)[:stages], window_size=2)
    features = encoder(torch.randn(2, 3, encoder.grid_px, 2 * encoder.grid_px))
    expected = [
        (2, c, encoder.grid_px // s, 2 * encoder.grid_px // s)
        for s, c in zip(encoder.strides, encoder.channels, strict=True)
    ]
    assert [tuple(f.shape) for f in features] == expected


def test_finest_features_have_passed_attention() -> None:
    encoder = SwinEncoder(embed_dim=12, depths=(2,), num_heads=(2,), window_size=4).double().eval()
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    other = image.clone()
    other[..., :4, :4] += 1  # one patch
    with torch.no_grad():
        changed = (encoder(image)[0] != encoder(other)[0]).any(1)
    assert changed.sum() > 1


def test_attention_without_autograd_equals_training_path() -> None:
    encoder = SwinEncoder(embed_dim=12, depths=(2, 2), num_heads=(1, 2), window_size=4).eval()
    for name, parameter in encoder.named_parameters():
        if "relative_position" in name:
            torch.nn.init.normal_(parameter)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        without = encoder(image)
    for a, b in zip(encoder(image), without, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("depths", "margin_px", "expected"),
    [
        ((2, 2, 2, 2), 0, 480),  # 8 * (4 + 8 + 16 + 32)
        ((2, 2, 2, 2), 128, 480),  # half a window of neighbours is free
        ((2, 2, 2, 2), 129, 736),
        ((2, 2, 2), 0, 224),
        ((2, 2, 2), 65, 352),
        ((1,), 0, 0),  # whole windows, none of them shifted
        ((1,), 1, 32),
        ((4,), 0, 64),
    ],
)
def test_margin_arithmetic(depths: tuple[int, ...], margin_px: int, expected: int) -> None:
    windows_px = [8 * 4 * 2**i for i in range(len(depths))]
    assert swin_margin_px(margin_px, windows_px, depths) == expected


def test_mismatched_stages_are_refused() -> None:
    with pytest.raises(ValueError, match="one each per stage"):
        SwinEncoder(depths=(2, 2), num_heads=(3,))
    with pytest.raises(ValueError, match="heads"):
        SwinEncoder(embed_dim=10)
