from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from networks import KMeansPatchEncoder, banded

MEAN, STD = (185.0, 145.0, 180.0), (45.0, 50.0, 40.0)


def stripes(axis: int, seed: int, side: int = 128) -> torch.Tensor:
    """A normalised picture of purple stripes of 3 px on pink, across or down; colours are shared by both.

    One stripe every 7 px, so that patches see it everywhere.
    """
    generator = torch.Generator().manual_seed(seed)
    at = (torch.arange(side) + int(torch.randint(7, (), generator=generator))) % 7 < 3
    dark = (at[:, None] if axis == 0 else at[None, :]).expand(side, side)[None].float()
    pink, purple = torch.tensor([220.0, 150.0, 190.0]), torch.tensor([110.0, 70.0, 150.0])
    rgb = pink[:, None, None] * (1 - dark) + purple[:, None, None] * dark
    rgb = rgb + 4 * torch.randn(3, side, side, generator=generator)
    return (rgb - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def encoder(n_patches: int = 12, strides: tuple[int, ...] = (4, 16, 32)) -> KMeansPatchEncoder:
    torch.manual_seed(0)
    return KMeansPatchEncoder(strides, n_patches, MEAN, STD).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def learned() -> KMeansPatchEncoder:
    net = encoder()
    net.learn([stripes(seed % 2, seed) for seed in range(8)])
    return net


@pytest.mark.parametrize("pixels", [1, 50, 1000, 4096])
@pytest.mark.parametrize("strides", [(4, 16, 32), (4,)])
def test_bands_equal_the_whole(strides, pixels, monkeypatch):
    monkeypatch.setattr(banded, "_MAP_PIXELS", pixels)
    net, image = encoder(strides=strides), torch.stack([stripes(0, 20), stripes(1, 21)])[..., :96, :]
    weight = torch.randn(3, 12, 1, 1)
    finest, *coarse = net(image)
    calls: list[int] = []
    net.conv.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        found = net.reduced(image, weight)
    row = 4 * 32 if len(strides) > 1 else 32  # map pixels in a row of the next level
    assert len(calls) == math.ceil((6 if len(strides) > 1 else 24) / max(pixels // row, 1))
    for one, other in zip([nn.functional.conv2d(finest, weight), *coarse], found, strict=True):
        torch.testing.assert_close(one, other)


def test_coarse_levels_are_roots_of_means_of_the_finest(learned):
    finest, *coarse = learned(stripes(0, 22)[None])
    for level, stride in zip(coarse, (16, 32), strict=True):
        mean = nn.functional.avg_pool2d(finest, stride // 4)
        torch.testing.assert_close(level.square(), mean + 1e-3)


def test_patterns_of_the_same_colours_are_told_apart(learned):
    def shown(axis: int, seed: int) -> torch.Tensor:
        return learned(stripes(axis, seed)[None])[-1].mean((0, 2, 3))

    across, down = [[shown(axis, seed) for seed in (30, 31, 32)] for axis in (0, 1)]
    within = max(float((a - b).norm()) for kind in (across, down) for a in kind for b in kind)
    between = min(float((a - b).norm()) for a in across for b in down)
    assert between > 2 * within


def test_the_patches_depend_on_its_seed_and_images_alone(learned):
    same, other = encoder(), encoder()
    same.learn([stripes(seed % 2, seed) for seed in range(8)])
    other.learn([stripes(seed % 2, seed) for seed in range(8)], seed=1)
    assert torch.equal(same.conv.weight, learned.conv.weight)
    assert not torch.equal(other.conv.weight, learned.conv.weight)


def test_glass_alone_is_refused():
    white = (torch.full((3, 64, 64), 250.0) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with pytest.raises(ValueError, match="0 patches of tissue are too few to choose 12 from"):
        encoder().learn([white])


def test_strides_must_divide_each_other():
    with pytest.raises(ValueError, match="multiple of the one before"):
        KMeansPatchEncoder((4, 6))
