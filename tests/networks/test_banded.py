"""A map computed band by band equals the one computed whole."""

from __future__ import annotations

import math

import pytest
import torch
from monai.networks.nets.swin_unetr import WindowAttention

from networks import banded
from networks.encoders import SwinEncoder
from networks.safb import SAFB


@pytest.fixture(params=[1, 50, 64, 1000])
def map_pixels(request, monkeypatch):
    """So many map pixels at once: below a row or window, and numbers that divide nothing."""
    monkeypatch.setattr(banded, "_MAP_PIXELS", request.param)
    return request.param


def both(module, *inputs):
    module.eval()
    whole = module(*inputs)  # with a gradient, all at once
    with torch.inference_mode():
        return module(*inputs), whole


def count_calls(module):
    """A list that grows by one with each call."""
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("batch", [1, 3])
def test_swin(map_pixels, batch, monkeypatch):
    encoder = SwinEncoder(embed_dim=12, depths=(2, 2), num_heads=(3, 6), window_size=4)
    image, calls, seen = torch.rand(batch, 3, 64, 96), [], WindowAttention.forward
    monkeypatch.setattr(WindowAttention, "forward", lambda self, x, mask: calls.append(len(x)) or seen(self, x, mask))
    whole = encoder.eval()(image)
    assert max(calls) == 24 * batch
    calls.clear()
    with torch.inference_mode():
        found = encoder(image)
    assert max(calls) <= batch * max(map_pixels // 16, 6)  # a row of windows at the least
    for a, b in zip(found, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(32, 64), (64, 32), (32, 32), (48, 80), (40, 64), (16, 64)])
def test_swin_on_maps_of_any_shape(map_pixels, shape):
    """Also where windows do not fill the map, and where one window does."""
    layer = SwinEncoder(embed_dim=12, depths=(2,), num_heads=(3,), window_size=4).layers[0]
    x = torch.rand(2, 12, *(side // 4 for side in shape))
    for given in (x, x.to(memory_format=torch.channels_last)):
        kept = given.clone()
        found, whole = both(layer, given)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
        assert torch.equal(given, kept)


def test_safb(map_pixels):
    fuse = SAFB(6, 8)
    fuse(torch.rand(2, 6, 9, 12), torch.rand(2, 8, 9, 12))  # statistics of its own
    skip, up = torch.rand(2, 6, 9, 12), torch.rand(2, 8, 9, 12)
    calls = count_calls(fuse.batch_norm)
    whole = fuse.eval()(skip, up)  # with a gradient, all at once
    with torch.inference_mode():
        found = fuse(skip, up)
    assert len(calls) == 1 + math.ceil(9 / max(map_pixels // 12, 1))
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)


def test_statistics_of_training_are_of_the_whole_map(map_pixels):
    one, other = SAFB(6, 8), SAFB(6, 8)
    other.load_state_dict(one.state_dict())
    skip, up = torch.rand(1, 6, 9, 12), torch.rand(1, 8, 9, 12)
    one(skip, up)
    with torch.no_grad():
        other(skip, up)
    torch.testing.assert_close(other.batch_norm.running_var, one.batch_norm.running_var)
