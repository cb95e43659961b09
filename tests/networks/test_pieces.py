"""A map computed piece by piece is the one computed whole."""

from __future__ import annotations

import pytest
import torch

from networks import pieces
from networks.encoders import SwinEncoder
from networks.safb import SAFB


@pytest.fixture(params=[1, 50, 64, 1000])
def cells(request, monkeypatch):
    """So many cells at once: below a row or window, and numbers that divide nothing."""
    monkeypatch.setattr(pieces, "_CELLS", request.param)
    return request.param


def both(module, *inputs):
    module.eval()
    whole = module(*inputs)  # with a gradient, all at once
    with torch.inference_mode():
        return module(*inputs), whole


@pytest.mark.parametrize("batch", [1, 3])
def test_swin(cells, batch, monkeypatch):
    encoder = SwinEncoder(embed_dim=12, depths=(2, 2), num_heads=(3, 6), window_size=4)
    calls = []
    seen = pieces.WindowAttention.forward
    monkeypatch.setattr(
        pieces.WindowAttention, "forward", lambda self, x, mask: calls.append(len(x)) or seen(self, x, mask)
    )
    found, whole = both(encoder, torch.rand(batch, 3, 64, 96))
    for a, b in zip(found, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    windows, in_pieces = calls[0], calls[len(calls) - len(calls) // 2 :]
    assert windows == 24 * batch
    assert max(in_pieces) <= max(cells // 16, 1)


def test_safb(cells):
    fuse = SAFB(6, 8)
    fuse(torch.rand(2, 6, 9, 12), torch.rand(2, 8, 9, 12))  # statistics of its own
    found, whole = both(fuse, torch.rand(2, 6, 9, 12), torch.rand(2, 8, 9, 12))
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)


def test_statistics_of_training_are_of_the_whole_map(cells):
    one, other = SAFB(6, 8), SAFB(6, 8)
    other.load_state_dict(one.state_dict())
    skip, up = torch.rand(1, 6, 9, 12), torch.rand(1, 8, 9, 12)
    one(skip, up)
    with torch.no_grad():
        other(skip, up)
    torch.testing.assert_close(other.batch_norm.running_var, one.batch_norm.running_var)
