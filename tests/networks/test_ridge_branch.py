from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from networks import KMeansPatchEncoder, PixNet, RidgeBranch, SwinEncoder, banded, pool_units
from networks.encoders.errors import TooLittleError

SIDE, STRIDE = 64, 4
MEAN, STD = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 1.0, 2.0, 1.0])


class Shades(nn.Module):
    """Two levels of features that can be computed by hand."""

    strides, channels, grid_px = (STRIDE, 4 * STRIDE), (3, 4), 4 * STRIDE

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 4, 1)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        fine = nn.functional.avg_pool2d(image, STRIDE)
        return [fine, self.mix(nn.functional.avg_pool2d(image.square(), 4 * STRIDE))]

    def input_margin_px(self, level: int, margin_px: int) -> int:
        return -(-margin_px // self.strides[level]) * self.strides[level]


def _label() -> torch.Tensor:
    label = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.int32)
    for i in range(16):
        y, x = divmod(i, 4)
        label[:, 0, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16] = i + 1
    return label


def _batches(n: int = 3) -> Iterator[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(n):
        image = torch.randn(2, 3, SIDE, SIDE, generator=generator)
        target = MEAN + STD * torch.randn(32, 4, generator=generator)
        yield {"image": image, "label": _label(), "target": target}


def _branch(**more) -> RidgeBranch:
    torch.manual_seed(0)
    return RidgeBranch(4, Shades(), **more).eval()


def _features(branch: RidgeBranch, n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Pooled frozen features of some batches, and their targets."""
    with torch.no_grad():
        pooled = [pool_units(branch.filters.features(b["image"]), b["label"], STRIDE) for b in _batches(n)]
    return torch.cat(pooled), torch.cat([b["target"] for b in _batches(n)])


def _answer(branch: RidgeBranch, batch: dict[str, torch.Tensor]) -> np.ndarray:
    with torch.no_grad():
        return branch.project(pool_units(branch(batch["image"]), batch["label"], branch.stride)).numpy()


def _answers(branch: RidgeBranch) -> np.ndarray:
    return np.concatenate([_answer(branch, batch) for batch in _batches()])


def test_full_rank_is_ridge_regression_on_pooled_features():
    branch = _branch(rank=4, shrinkage=0.05)
    features, target = _features(branch)
    branch.fit(features, target)
    x, y = features.double().numpy(), target.double().numpy()
    x, z = (x - x.mean(0)) / (x.std(0) + 1e-6), (y - y.mean(0)) / y.std(0)
    expected = Ridge(alpha=0.05 * x.shape[1] * len(x)).fit(x, z).predict(x) * y.std(0) + y.mean(0)
    np.testing.assert_allclose(_answers(branch), expected, atol=1e-4)


def test_rank_keeps_the_leading_components_of_the_standardised_fit():
    whole, cut = _branch(rank=4), _branch(rank=2)
    for branch in (whole, cut):
        branch.fit(*_features(branch))
    std = torch.cat([b["target"] for b in _batches()]).std(0).numpy()
    full, less = (_answers(branch) / std for branch in (whole, cut))
    u, s, vt = np.linalg.svd(full - full.mean(0), full_matrices=False)
    s[2:] = 0
    np.testing.assert_allclose(less - less.mean(0), u * s @ vt, atol=1e-4)


def test_one_unit_is_refused():
    branch = _branch()
    features, target = _features(branch)
    with pytest.raises(TooLittleError, match="two units"):
        branch.fit(features[:1], target[:1])


def test_context_must_be_an_odd_number_of_cells():
    assert _branch(context_px=48).mean.shape == (11,)
    for wrong in (32, 40):
        with pytest.raises(ValueError, match="odd multiple"):
            _branch(context_px=wrong)


def _patches(strides: tuple[int, ...]) -> KMeansPatchEncoder:
    encoder = KMeansPatchEncoder(strides, 5)
    nn.init.normal_(encoder.conv.weight, std=0.1)
    return encoder


@pytest.mark.parametrize("strides", [(4, 16, 32), (16,), None])
@pytest.mark.parametrize("map_pixels", [1, 100, 4096])
def test_the_map_is_the_features_reduced_though_never_held_whole(strides, map_pixels, monkeypatch):
    monkeypatch.setattr(banded, "_MAP_PIXELS", map_pixels)
    torch.manual_seed(0)
    encoder = _patches(strides) if strides else Shades()
    branch = RidgeBranch(4, encoder, rank=3, context_px=3 * encoder.strides[-1]).eval()
    nn.init.normal_(branch.components)
    nn.init.normal_(branch.mean)
    image = 40 * torch.rand(2, 3, 96, SIDE)
    features = branch.filters.features(image).movedim(1, -1)
    expected = ((features - branch.mean) @ branch.components.T).movedim(-1, 1)
    if strides == (4, 16, 32):
        monkeypatch.setattr(encoder, "forward", None)  # which would hold the finest level
    with torch.inference_mode():
        torch.testing.assert_close(branch(image), expected, atol=1e-3, rtol=1e-4)


def test_context_is_a_mean_over_the_cells_that_there_are():
    filters = _branch(context_px=48).filters
    image = torch.randn(1, 3, SIDE, SIDE)
    *_, coarse, context = filters.levels(image)
    torch.testing.assert_close(context[0, :, 0, 0], coarse[0, :, :2, :2].mean((1, 2)))
    torch.testing.assert_close(context[0, :, 1, 2], coarse[0, :, :3, 1:4].mean((1, 2)))


def _net() -> PixNet:
    torch.manual_seed(0)
    encoder = SwinEncoder(embed_dim=12, depths=(2, 2), num_heads=(1, 2), window_size=4)
    net = PixNet(4, encoder, (12, 12), ridge=_branch(rank=3))
    net.initialize(mean=MEAN, std=STD)
    return net


def test_the_prediction_is_the_mean_of_two_and_training_is_of_the_head_alone():
    net, batch = _net(), next(_batches())
    net.ridge.fit(*_features(net.ridge))
    net.eval()
    with torch.no_grad():
        both = net(batch["image"], batch["label"]).log_cp10k
        own = net.head.project(net.pool(net.decode(batch["image"]), batch["label"]))
    other = torch.from_numpy(_answer(net.ridge, batch))
    torch.testing.assert_close(both, (own + other) / 2)
    assert float((own - other).abs().max()) > 0.01
    net.train()
    assert not net.ridge.filters.encoder.training
    net(batch["image"], batch["label"]).log_cp10k.sum().backward()
    assert all(p.grad is None for p in net.ridge.parameters())
    assert net.features(batch["image"]).shape[1] == net.head.channels < net.channels


def test_weight_and_bias_are_those_of_head_and_branch():
    net = _net()
    net.ridge.fit(*_features(net.ridge))
    pooled = torch.randn(6, net.channels)
    weight, bias = net.affine()
    torch.testing.assert_close(pooled @ weight.T + bias, net.project(pooled))
    net.ridge = None
    weight, bias = net.affine()
    own = pooled[:, : net.head.channels]
    torch.testing.assert_close(own @ weight.T + bias, net.project(own))


def test_a_ridge_branch_needs_the_linear_head_and_the_same_stride():
    encoder = SwinEncoder(embed_dim=12, depths=(2, 2), num_heads=(1, 2), window_size=4)
    with pytest.raises(ValueError, match="must be 'linear'"):
        PixNet(4, encoder, (12, 12), head="programs", ridge=_branch())
    coarse = _branch()
    coarse.stride = 8
    with pytest.raises(ValueError, match="strides equal"):
        PixNet(4, encoder, (12, 12), ridge=coarse)
