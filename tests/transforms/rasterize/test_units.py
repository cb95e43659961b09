from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandFlipd, RandRotate90d

from transforms import RasterizeUnits, RasterizeUnitsD, RasterizeUnitsd, RasterizeUnitsDict, UnitLayer

SIZE = (61, 47)  # rows, columns


def lattice(pitch_um: float, jitter_um: float = 0.0, seed: int = 0, extent_um: float = 80.0) -> np.ndarray:
    x, y = np.meshgrid(*[np.arange(-10, extent_um, pitch_um)] * 2)
    centers = np.stack([x.ravel(), y.ravel()], axis=1)
    return centers + np.random.default_rng(seed).uniform(-jitter_um, jitter_um, centers.shape)


def brute_force(layer: UnitLayer, size_px, origin_um, mpp) -> np.ndarray:
    """The pixel-centre rule, one unit and one pixel at a time."""
    mask = np.zeros(size_px, np.int64)
    y = (np.arange(size_px[0]) + 0.5) * mpp + origin_um[1]
    x = (np.arange(size_px[1]) + 0.5) * mpp + origin_um[0]
    half = layer.size_um / 2
    for number, (cx, cy) in enumerate(layer.centers_um, 1):
        if layer.shape == "circle":
            inside = (y[:, None] - cy) ** 2 + (x - cx) ** 2 < half**2
        else:
            inside = ((y >= cy - half) & (y < cy + half))[:, None] & (x >= cx - half) & (x < cx + half)
        assert not mask[inside].any()
        mask[inside] = number
    return mask


def each(draw: RasterizeUnits, layer, size_px, origin_um, mpp) -> np.ndarray:
    """The pixels of each unit, on whichever mask it is drawn, bool (U, height, width)."""
    found = np.zeros((len(layer.centers_um), *size_px), bool)
    for mask, keep in zip(*draw([layer], size_px, origin_um, mpp), strict=True):
        for number, unit in enumerate(np.flatnonzero(keep), 1):
            assert not found[unit].any()
            found[unit] = mask == number
    return found


def units_in(mask: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The mask with the units' own numbers in place of 1..n."""
    return np.concatenate([[0], np.flatnonzero(keep) + 1])[mask]


@pytest.mark.parametrize("shape", ["circle", "square"])
@pytest.mark.parametrize("mpp", [0.5, 0.83, 1.0])
@pytest.mark.parametrize("origin_px", [(0, 0), (7, 13), (-6, -9)])
def test_equals_the_pixel_centre_rule(shape, mpp, origin_px):
    origin_um = (origin_px[0] * mpp, origin_px[1] * mpp)
    layer = UnitLayer(lattice(11, 1.5), shape, 7.3)
    mask, (keep,) = RasterizeUnits(drop_cut=False)([layer], SIZE, origin_um, mpp)
    want = brute_force(layer, SIZE, origin_um, mpp)
    assert mask.dtype == np.int32
    np.testing.assert_array_equal(units_in(mask[0], keep), want)
    assert set(np.flatnonzero(keep) + 1) == set(want.ravel()) - {0}
    assert set(mask.ravel()) == set(range(keep.sum() + 1))


@pytest.mark.parametrize(("shape", "mpp"), product(["circle", "square"], [0.5, 0.83]))
def test_cut_units_are_dropped_and_whole_ones_kept(shape, mpp):
    origin_um = (4 * mpp, 3 * mpp)
    layers = [UnitLayer(lattice(11, 1.5), shape, 7.3), UnitLayer(lattice(5, 0.4, 1), "circle", 4.0)]
    mask, keep = RasterizeUnits()(layers, SIZE, origin_um, mpp)
    for layer, drawn, kept in zip(layers, mask, keep, strict=True):
        low = (layer.centers_um - layer.size_um / 2 - origin_um) / mpp
        high = (layer.centers_um + layer.size_um / 2 - origin_um) / mpp
        whole = ((low >= 0) & (high <= SIZE[::-1])).all(axis=1)
        assert 0 < whole.sum() < len(whole)
        np.testing.assert_array_equal(kept, whole)
        want = brute_force(layer, SIZE, origin_um, mpp)
        want[~np.isin(want, np.flatnonzero(whole) + 1)] = 0
        np.testing.assert_array_equal(units_in(drawn, kept), want)


@pytest.mark.parametrize(("shape", "size_um", "pitch_um"), [("square", 2, 2), ("circle", 3, 3.2), ("square", 0.4, 2)])
@pytest.mark.parametrize("mpp", [0.5, 2 / 3, 0.79, 4 / 3])
def test_a_pixel_s_unit_does_not_depend_on_the_region(shape, size_um, pitch_um, mpp):
    angle = 0.03
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    layer = UnitLayer(lattice(pitch_um) @ turn, shape, size_um)
    draw = RasterizeUnits(drop_cut=False)
    whole = each(draw, layer, SIZE, (-3 * mpp, 5 * mpp), mpp)
    for x0, y0, width, height in [(0, 0, 20, 30), (13, 17, 1, 1), (20, 31, 27, 30)]:
        part = each(draw, layer, (height, width), ((x0 - 3) * mpp, (y0 + 5) * mpp), mpp)
        np.testing.assert_array_equal(part, whole[:, y0 : y0 + height, x0 : x0 + width])


@pytest.mark.parametrize("mpp", [0.25, 2 / 3, 1.0, 4 / 3, 2.0])
def test_bins_that_touch_tile_the_region_without_gap_or_overlap(mpp):
    """Their edges may fall on pixel centres (mpp 4/3), where rounding must not let two own a pixel, or none."""
    mask, _ = RasterizeUnits(drop_cut=False)([UnitLayer(lattice(2) + 1, "square", 2)], (30, 40), (0, 0), mpp)
    assert (mask > 0).all()
    area_px = np.bincount(mask.ravel())[1:]
    assert area_px.max() <= math.ceil(2 / mpp) ** 2


@pytest.mark.parametrize("mpp", [0.1, 0.2, 0.27, 0.83, 4 / 3])
def test_edges_on_pixel_centres_give_all_bins_the_same_pixels(mpp):
    """Three-pixel bins from half a pixel on: rounding in micrometres must not widen or narrow any."""
    x, y = np.meshgrid(*[np.arange(60) * (3 * mpp) + 2 * mpp] * 2)
    layer = UnitLayer(np.stack([x.ravel(), y.ravel()], axis=1), "square", 3 * mpp)
    mask, (keep,) = RasterizeUnits()([layer], (190, 190), (0, 0), mpp)
    assert keep.all()
    np.testing.assert_array_equal(np.bincount(mask.ravel())[1:], 9)


@pytest.mark.parametrize("mpp", [0.1, 0.27, 0.83])
def test_rims_on_pixel_centres_fall_alike_in_every_region(mpp):
    x, y = np.meshgrid(*[(np.arange(12) * 7 + 0.5) * mpp] * 2)
    layer = UnitLayer(np.stack([x.ravel(), y.ravel()], axis=1), "circle", 6 * mpp)
    draw = RasterizeUnits(drop_cut=False)
    whole, (keep,) = draw([layer], (84, 84), (0, 0), mpp)
    whole = units_in(whole[0], keep)
    for i in range(1, 60):
        part, (keep,) = draw([layer], (20, 20), (i * mpp, (60 - i) * mpp), mpp)
        np.testing.assert_array_equal(units_in(part[0], keep), whole[60 - i : 80 - i, i : i + 20])


@pytest.mark.parametrize("shape", ["circle", "square"])
def test_no_unit_is_lost_for_being_smaller_than_a_pixel(shape):
    layer = UnitLayer(lattice(2.0, 0.4), shape, 0.3)
    mpp, size = 1.0, (70, 70)
    mask, (keep,) = RasterizeUnits(drop_cut=False)([layer], size, (0, 0), mpp)
    home = np.floor(layer.centers_um / mpp).astype(int)
    inside = ((home >= 0) & (home < size[::-1])).all(axis=1)
    np.testing.assert_array_equal(keep, inside)
    drawn = units_in(mask[0], keep)
    np.testing.assert_array_equal(drawn[home[inside, 1], home[inside, 0]], np.flatnonzero(inside) + 1)


def test_two_units_in_one_pixel_both_have_it():
    layer = UnitLayer(np.array([[3.2, 3.2], [3.8, 3.8]]), "square", 0.3)
    masks, keep = RasterizeUnits()([layer], (8, 8), (0, 0), 1.0)
    assert masks[:, 3, 3].tolist() == [1, 1]
    assert masks.sum() == 2
    np.testing.assert_array_equal(np.sort(keep, 0), [[False, False], [True, True]])


def overlapping(kind: str) -> UnitLayer:
    """Spots wider than their pitch, bins at rounded places, bins of a turned lattice, and units at random."""
    if kind == "spots 55 at 50":
        return UnitLayer(lattice(50, extent_um=420), "circle", 55)
    if kind == "bins, rounded":
        return UnitLayer(np.round(lattice(8, extent_um=120) * 0.97), "square", 8)
    if kind == "bins, turned":
        angle = math.pi / 4
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return UnitLayer((lattice(8, extent_um=120) - 55) @ turn + 30, "square", 8)
    return UnitLayer(np.random.default_rng(0).uniform(0, 80, (60, 2)), "circle", 21)


@pytest.mark.parametrize("kind", ["spots 55 at 50", "bins, rounded", "bins, turned", "at random"])
@pytest.mark.parametrize("drop_cut", [True, False])
def test_each_of_overlapping_units_is_drawn_as_if_it_were_alone(kind, drop_cut):
    layer, draw = overlapping(kind), RasterizeUnits(drop_cut)
    size, origin_um, mpp = ((200, 180), (5, 10), 2.0) if "55" in kind else (SIZE, (10, 10), 1.0)
    found = each(draw, layer, size, origin_um, mpp)
    assert found.sum(0).max() > 1
    for unit, center in enumerate(layer.centers_um):
        alone, keep = draw([UnitLayer(center[None], layer.shape, layer.size_um)], size, origin_um, mpp)
        assert len(alone) == len(keep) == 1
        np.testing.assert_array_equal(found[unit], alone[0] > 0)
    unit, row, column = draw.pixels(layer, size, origin_um, mpp)
    counts = np.zeros_like(found, dtype=int)
    np.add.at(counts, (unit, row, column), 1)
    assert counts.max() == 1
    if not drop_cut:
        np.testing.assert_array_equal(counts > 0, found)


def test_units_that_do_not_overlap_take_one_mask():
    layers = [
        UnitLayer(lattice(8), "square", 8),
        UnitLayer(np.zeros((0, 2)), "circle", 5),
        UnitLayer(lattice(9), "circle", 9),
    ]
    masks, keep = RasterizeUnits()(layers, SIZE, (0, 0), 1.0)
    assert len(masks) == len(keep) == 3
    assert masks[1].max() == 0


def test_a_heap_of_units_is_reported_in_a_sentence():
    layer = UnitLayer(np.full((65, 2), 20.0), "circle", 5)
    with pytest.raises(ValueError, match="More than 64 units cover one place"):
        RasterizeUnits()([layer], SIZE, (0, 0), 1.0)
    assert len(RasterizeUnits().pixels(layer, SIZE, (0, 0), 1.0)[0]) == 65 * 16


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"centers_um": np.zeros((3, 3)), "shape": "circle", "size_um": 5}, "centers_um"),
        ({"centers_um": np.array([[np.nan, 1]]), "shape": "circle", "size_um": 5}, "finite"),
        ({"centers_um": np.zeros((1, 2)), "shape": "hexagon", "size_um": 5}, "hexagon"),
        ({"centers_um": np.zeros((1, 2)), "shape": "circle", "size_um": 0}, "size_um"),
        ({"centers_um": np.zeros((1, 2))}, "give centers_um, shape and size_um"),
    ],
)
def test_malformed_layers_are_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        RasterizeUnits()([layer], (9, 9), (0, 0), 1.0)


# Dictionary form


def region(size_px=SIZE, origin_px=(7, 13), mpp=0.83) -> MetaTensor:
    affine = torch.eye(4, dtype=torch.float64)
    affine[0, 0] = affine[1, 1] = mpp
    affine[0, 3], affine[1, 3] = (origin_px[1] + 0.5) * mpp, (origin_px[0] + 0.5) * mpp
    meta = {"mpp": mpp, "origin_um": (origin_px[0] * mpp, origin_px[1] * mpp), "filename_or_obj": "a.tif"}
    return MetaTensor(torch.rand(3, *size_px, generator=torch.Generator().manual_seed(0)), affine=affine, meta=meta)


def sample() -> dict:
    layers = [UnitLayer(lattice(11, 1.5), "circle", 7.3), UnitLayer(lattice(4, 0.5), "square", 3.0)]
    n = sum(len(layer.centers_um) for layer in layers)
    return {
        "image": region(),
        "label": layers,
        "target": torch.arange(n * 2.0).reshape(n, 2),
        "total": np.arange(n),
        "patient": "C",
    }


def test_vectors_are_filtered_like_the_units():
    given = sample()
    out = RasterizeUnitsd()(given)
    mask, keep = RasterizeUnits()(given["label"], SIZE, given["image"].meta["origin_um"], 0.83)
    kept = np.flatnonzero(np.concatenate(keep))
    assert isinstance(out["label"], MetaTensor)
    assert out["label"].dtype == torch.int32
    np.testing.assert_array_equal(out["label"].numpy(), mask)
    assert torch.equal(out["label"].affine, given["image"].affine)
    assert out["label"].meta["mpp"] == 0.83
    np.testing.assert_array_equal(out["total"], kept)
    assert torch.equal(out["target"], given["target"][kept])
    assert out["patient"] == "C"
    n = [k.sum() for k in keep]
    assert out["unit_layer"].tolist() == [0] * n[0] + [1] * n[1]
    assert out["unit_index"].tolist() == [*range(1, n[0] + 1), *range(1, n[1] + 1)]
    assert out["unit_index"].dtype == out["unit_layer"].dtype == torch.int64
    assert out["area_um2"].dtype == torch.float32
    np.testing.assert_allclose(out["area_um2"].numpy(), [math.pi / 4 * 7.3**2] * n[0] + [9.0] * n[1], rtol=1e-6)
    assert RasterizeUnitsD is RasterizeUnitsDict is RasterizeUnitsd


def test_a_region_without_units_gives_empty_vectors():
    given = sample() | {"image": region(origin_px=(10_000, 0))}
    out = RasterizeUnitsd()(given)
    assert not out["label"].any()
    for key in ("target", "total", "unit_layer", "unit_index", "area_um2"):
        assert len(out[key]) == 0
    out = RasterizeUnitsd()({"image": region(), "label": []})
    assert out["label"].shape == (0, *SIZE)
    assert out["unit_index"].dtype == torch.int64


@pytest.mark.parametrize("seed", range(6))
def test_flipping_and_turning_the_sample_equals_drawing_the_moved_units(seed):
    """Unit k's centre moves with the pixels: carry each through the affine that MONAI keeps."""
    given = RasterizeUnitsd()(sample())
    keys = ("image", "label")
    move = Compose([RandFlipd(keys, 0.5, 0), RandFlipd(keys, 0.5, 1), RandRotate90d(keys, 0.8)])
    move.set_random_state(seed)
    moved = move(given)
    _, keep = RasterizeUnits()(sample()["label"], SIZE, given["image"].meta["origin_um"], 0.83)
    layers = []
    for layer, kept in zip(sample()["label"], keep, strict=True):
        yx = np.concatenate([layer.centers_um[kept][:, ::-1], np.zeros((kept.sum(), 1)), np.ones((kept.sum(), 1))], 1)
        index = yx @ np.linalg.inv(moved["image"].affine.numpy()).T  # pixel 0's centre is 0
        layers.append(UnitLayer((index[:, 1::-1] + 0.5) * 0.83, layer.shape, layer.size_um))
    want, _ = RasterizeUnits()(layers, moved["image"].shape[-2:], (0, 0), 0.83)
    np.testing.assert_array_equal(moved["label"].numpy(), want)
    assert torch.equal(moved["label"].affine, moved["image"].affine)


def test_misuse_is_reported():
    with pytest.raises(ValueError, match='"target" has 5 entries'):
        RasterizeUnitsd()(sample() | {"target": torch.zeros(5, 2)})
    with pytest.raises(ValueError, match="ReadRegiond first"):
        RasterizeUnitsd()(sample() | {"image": torch.zeros(3, 9, 9)})
    with pytest.raises(ValueError, match="flipped, turned or cropped"):
        RasterizeUnitsd()(RandFlipd("image", 1.0, 0)(sample()))
    with pytest.raises(ValueError, match="one key"):
        RasterizeUnitsd(keys=("label", "other"))
    assert RasterizeUnitsd(allow_missing_keys=True)({"x": 1}) == {"x": 1}
