from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from networks.decoder import Decoder

STRIDES = (4, 8, 16, 32)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_output_has_the_finest_stride(levels: int) -> None:
    decoder = Decoder((3, 4, 5, 6)[:levels], STRIDES[:levels], (7, 8, 9, 10)[:levels])
    features = [torch.randn(1, c, 128 // s, 64 // s) for c, s in zip((3, 4, 5, 6)[:levels], STRIDES, strict=False)]
    assert decoder(features).shape == (1, 7, 32, 16)


@pytest.mark.parametrize("fusion", ["safb", "conv"])
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_margins_are_exact(level: int, fusion: str, scramble: Callable[[nn.Module], nn.Module]) -> None:
    decoder = scramble(Decoder((3, 4, 5, 6), STRIDES, (8, 8, 8, 8), fusion))
    core_px, outside_px = 256, decoder.margins_px[level] // STRIDES[level]  # in map pixels of this level
    generator = torch.Generator().manual_seed(1)
    features = [
        torch.randn(1, c, 64 // s, 768 // s, dtype=torch.float64, generator=generator)
        for c, s in zip((3, 4, 5, 6), STRIDES, strict=True)
    ]
    core = slice(core_px // 4, 2 * core_px // 4)

    def change(columns: slice) -> float:
        other = [f.clone() for f in features]
        other[level][..., columns] += 1
        with torch.no_grad():
            return float((decoder(other) - decoder(features))[..., core].abs().max())

    first, last = core_px // STRIDES[level], 2 * core_px // STRIDES[level]
    assert change(slice(0, first - outside_px)) == 0
    assert change(slice(last + outside_px, None)) == 0
    assert change(slice(first - outside_px, first - outside_px + 1)) > 0
    assert change(slice(last + outside_px - 1, last + outside_px)) > 0


def test_wrong_widths_and_strides_are_refused() -> None:
    with pytest.raises(ValueError, match="one width per level"):
        Decoder((3, 4), (4, 8), (8,))
    with pytest.raises(ValueError, match="divide"):
        Decoder((3, 4), (4, 6), (8, 8))
