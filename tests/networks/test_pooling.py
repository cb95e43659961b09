from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from networks.pooling import pool_units, unit_offsets

STRIDE = 4


def blobs(seed: int, batch: int = 2, layers: int = 2, size: int = 40) -> torch.Tensor:
    """Units of at least one map pixel's area, with a ragged edge, of different numbers in each layer."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.zeros(batch, layers, size, size, dtype=torch.int32)
    for b in range(batch):
        for layer in range(layers):
            for index in range(1 + b + 2 * layer):
                i, j = 10 * (index // 2), 20 * (index % 2)
                ragged = torch.rand(9, 17, generator=generator) < 0.7
                label[b, layer, i : i + 9, j : j + 17][ragged] = index + 1
    return label


def features_like(label: torch.Tensor, channels: int = 3) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(label.shape[0], channels, label.shape[2] // STRIDE, label.shape[3] // STRIDE)


def test_equals_brute_force_in_order_of_batch_layer_index() -> None:
    label = blobs(0)
    features = features_like(label)
    per_pixel = features.repeat_interleave(STRIDE, 2).repeat_interleave(STRIDE, 3)
    expected = [
        per_pixel[b][:, label[b, layer] == index].mean(1)
        for b in range(2)
        for layer in range(2)
        for index in range(1, int(label[b, layer].max()) + 1)
    ]
    torch.testing.assert_close(pool_units(features, label, STRIDE), torch.stack(expected))
    assert unit_offsets(label).tolist() == [0, 1, 4, 6, 10]


def test_small_units_are_bilinear_at_their_centroid() -> None:
    label = torch.zeros(2, 1, 24, 24, dtype=torch.int32)
    label[0, 0, 0, 0] = 1  # beyond the first map pixel's centre: the border repeats
    label[0, 0, 9:11, 13:16] = 2
    label[1, 0, 21, 5:8] = 1
    centroids = [(0, 0.5, 0.5), (0, 14.5, 10.0), (1, 6.5, 21.5)]
    features = features_like(label).double()
    expected = torch.stack(
        [
            F.grid_sample(
                features[b : b + 1],
                torch.tensor([[[[x / 12 - 1, y / 12 - 1]]]], dtype=torch.float64),
                padding_mode="border",
                align_corners=False,
            ).flatten()
            for b, x, y in centroids
        ]
    )
    torch.testing.assert_close(pool_units(features, label, STRIDE), expected)


@pytest.mark.parametrize("seed", range(3))
def test_union_is_the_area_weighted_mean_of_disjoint_parts(seed: int) -> None:
    label = blobs(seed, batch=1, layers=1, size=40).repeat(1, 2, 1, 1)
    part = torch.rand(40, 40, generator=torch.Generator().manual_seed(seed)) < 0.5
    label[0, 0] = torch.where(label[0, 0] > 0, 1 + part.int(), 0)
    label[0, 1] = (label[0, 1] > 0).int()
    area = torch.bincount(label[0, 0].flatten())[1:, None]
    assert area.min() >= STRIDE**2
    first, second, union = pool_units(features_like(label), label, STRIDE)
    torch.testing.assert_close((torch.stack([first, second]) * area).sum(0) / area.sum(), union)


@pytest.mark.parametrize("size_px", [1, 3, 9])
def test_invariant_to_flips_and_rotations(size_px: int) -> None:
    label = torch.zeros(1, 1, 40, 40, dtype=torch.int32)
    label[0, 0, 3 : 3 + size_px, 14 : 14 + size_px] = 1
    label[0, 0, 25 : 25 + size_px, 30 : 30 + size_px] = 2
    features = features_like(label)
    expected = pool_units(features, label, STRIDE)
    for turned in (lambda t: t.flip(-1), lambda t: t.flip(-2), lambda t: t.rot90(1, (-2, -1))):
        torch.testing.assert_close(pool_units(turned(features), turned(label), STRIDE), expected)


def test_gradient_stays_inside_the_units() -> None:
    label = blobs(0)
    features = features_like(label).requires_grad_()
    pool_units(features, label, STRIDE).sum().backward()
    touched = F.max_pool2d((label > 0).any(1, keepdim=True).float(), STRIDE) > 0
    assert touched.any()
    assert not touched.all()
    assert torch.equal((features.grad != 0).any(1, keepdim=True), touched)


def test_gradient_is_that_of_a_linear_map() -> None:
    label = torch.zeros(1, 1, 8, 8, dtype=torch.int32)
    label[0, 0, :5, :5], label[0, 0, 7, 7] = 1, 2
    features = torch.randn(1, 2, 2, 2, requires_grad=True)
    weights = torch.randn(2, 2)
    (pool_units(features, label, STRIDE) * weights).sum().backward()
    shift = torch.randn_like(features)
    change = pool_units(features + shift, label, STRIDE) - pool_units(features, label, STRIDE)
    torch.testing.assert_close((features.grad * shift).sum(), (change * weights).sum(), rtol=1e-4, atol=1e-5)


def test_no_units_give_no_rows_but_a_graph() -> None:
    features = torch.randn(1, 3, 4, 4, requires_grad=True)
    pooled = pool_units(features, torch.zeros(1, 2, 16, 16, dtype=torch.int32), STRIDE)
    assert pooled.shape == (0, 3)
    pooled.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_gaps_and_foreign_masks_are_refused() -> None:
    features, label = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 16, 16, dtype=torch.int32)
    label[..., :4, :4] = 2
    with pytest.raises(ValueError, match="1 of 2 unit indices"):
        pool_units(features, label, STRIDE)
    with pytest.raises(ValueError, match="does not lie on"):
        pool_units(features, label[..., :8], STRIDE)
