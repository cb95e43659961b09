"""Tiled equals untiled, with the real network, reader and rasteriser on a small slide."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from monai.transforms import NormalizeIntensity

from bundle.data.units import Units
from bundle.inference import MapInferer, SlideInferer, inferers, pool
from networks import PixNet, SwinEncoder
from transforms import RasterizeUnits, SlideReader


@pytest.fixture(scope="module")
def slide(tmp_path_factory, write_slide):
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 255, (40, 44, 3))
    image = np.kron(coarse, np.ones((16, 16, 1))).astype(np.uint8)[:601, :690]
    image[rng.random(image.shape[:2]) < 0.2] = 30
    return write_slide(tmp_path_factory.mktemp("slide") / "s.tif", image, 0.7)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = PixNet(4, SwinEncoder(embed_dim=12, depths=(2, 2), num_heads=(1, 2), window_size=4), (8, 8)).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net


def _units(shape: str, size_um: float, seed: int = 0) -> Units:
    rng = np.random.default_rng(seed)
    pitch = size_um / 0.7 * 1.1
    grid = np.stack(np.meshgrid(np.arange(2, 680, pitch), np.arange(2, 590, pitch)), -1).reshape(-1, 2)
    centers = grid[rng.permutation(len(grid))[:200]]
    n = len(centers)
    return Units(
        "u",
        np.array([str(i) for i in range(n)]),
        np.array([], str),
        sp.csr_matrix((n, 0), dtype=np.float32),
        centers,
        np.ones(n, bool),
        shape,  # type: ignore[arg-type]
        size_um,
        "counts",
        0.7,
    )


def _infer(slide, network, units, tile_px: int) -> torch.Tensor:
    inferer = SlideInferer(
        SlideReader(), NormalizeIntensity(127.0, 60.0), RasterizeUnits(drop_cut=False), mpp=1.0, tile_px=tile_px
    )
    return inferer({"image": str(slide), "units": units}, network)


@pytest.mark.parametrize(("shape", "size_um"), [("circle", 60.0), ("square", 9.0), ("square", 2.0)])
def test_tiled_equals_untiled_at_a_scale_that_resamples_and_at_edges(slide, network, shape, size_um):
    units = _units(shape, size_um)
    whole = _infer(slide, network, units, 10_000)
    assert whole.shape == (len(units), network.channels)
    assert whole.std() > 1e-3
    for tile_px in (32, 160):
        torch.testing.assert_close(_infer(slide, network, units, tile_px), whole, rtol=1e-4, atol=1e-5)


def test_the_mean_over_a_unit_is_the_networks_own_pooling(slide, network):
    units = _units("circle", 60.0)
    reader = SlideReader().open(str(slide))
    image = reader.read_region(-64, -64, 640, 640, 1.0).transpose(2, 0, 1).astype(np.float32)
    layer = {"centers_um": units.centers_px * 0.7, "shape": "circle", "size_um": 60.0}
    label, keep = RasterizeUnits(drop_cut=True)([layer], (640, 640), (-64.0, -64.0), 1.0)
    with torch.no_grad():
        features = network.features(torch.as_tensor(NormalizeIntensity(127.0, 60.0)(image))[None])
        pooled = network.pool(features, torch.from_numpy(label)[None])
    torch.testing.assert_close(_infer(slide, network, units, 10_000)[keep[0]], pooled, rtol=1e-4, atol=1e-5)


def test_no_units_no_features(slide, network):
    assert _infer(slide, network, _units("circle", 60.0).take(np.array([], int)), 128).shape == (0, network.channels)


class _Stopped(Exception):
    """The machine went down."""


def _map(slide, network, work, tile_px: int, blocks=None, sha: str = "sha", backends=("cucim", "tifffile"), **kw):
    inferer = MapInferer(
        SlideReader(backends), NormalizeIntensity(127.0, 60.0), 1.0, ["a", "b", "c", "d"], str(work), tile_px, sha, **kw
    )
    everywhere = np.array([(row, column) for row in range(2) for column in range(2)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inferers, "required_blocks", lambda *_: everywhere if blocks is None else blocks)
        return inferer({"image": str(slide), "section": "s"}, network)


def test_the_map_on_disk_does_not_depend_on_the_tiles(slide, network, tmp_path):
    whole = _map(slide, network, tmp_path / "whole", 10_000).array[:]
    assert np.isfinite(whole).all()
    tiled = _map(slide, network, tmp_path / "tiled", 256).array[:]
    np.testing.assert_allclose(tiled, whole, rtol=1e-4, atol=1e-5)
    assert whole.std() > 1e-3
    ahead = _map(slide, network, tmp_path / "ahead", 256, num_readers=3).array[:]
    np.testing.assert_array_equal(ahead, tiled)


@pytest.mark.parametrize(("shape", "size_um"), [("circle", 60.0), ("square", 2.0)])
def test_evaluation_and_prediction_pool_the_same(slide, network, tmp_path, shape, size_um):
    """A map is pooled while it is computed, or from disk."""
    units = _units(shape, size_um)
    units = units.take((units.centers_px * 0.7 > 40).all(1) & (units.centers_px * 0.7 < 400).all(1))
    dense = _map(slide, network, tmp_path, 256)
    features = pool(dense, units, RasterizeUnits(drop_cut=False))
    np.testing.assert_allclose(features, _infer(slide, network, units, 256).numpy(), rtol=1e-4, atol=1e-5)


def test_only_tiles_that_are_needed_are_computed(slide, network, tmp_path):
    diagonal = np.array([(0, 0), (1, 1)])
    part = _map(slide, network, tmp_path, 256, diagonal).array[:]
    assert np.isfinite(part[:, :64, :64]).all()
    assert np.isfinite(part[:, 64:, 64:]).all()
    assert np.isnan(part[:, :64, 64:]).all()


def test_a_stopped_map_goes_on_to_the_same_contents(slide, network, tmp_path):
    whole = _map(slide, network, tmp_path / "whole", 256).array[:]
    calls = []

    def stop_at_third(image, original=network.features):
        calls.append(1)
        if len(calls) == 3:
            raise _Stopped
        return original(image)

    network.features = stop_at_third
    try:
        with pytest.raises(_Stopped):
            _map(slide, network, tmp_path / "again", 256)
        resumed = _map(slide, network, tmp_path / "again", 256).array[:]
    finally:
        del network.features
    np.testing.assert_array_equal(resumed, whole)
    assert len(calls) <= 3 + 3  # four tiles, of which one or two were kept


def test_another_tiling_slide_or_model_begins_anew_and_the_same_does_not(slide, network, tmp_path):
    own = Path(shutil.copy(slide, tmp_path / "own.tif"))

    def computed(**changed) -> int:
        """How many tiles a map in the same folder takes."""
        calls = []

        def counted(image, original=network.features):
            calls.append(1)
            return original(image)

        network.features = counted
        try:
            _map(own, network, tmp_path / "work", **{"tile_px": 256, **changed})
        finally:
            del network.features
        return len(calls)

    assert computed() == 4
    assert computed() == 0
    assert computed(tile_px=512) == 1
    assert computed() == 4
    assert computed(sha="another") == 4
    assert computed() == 4
    os.utime(own, (1, 1))
    assert computed() == 4
    other = 0 if SlideReader(("cucim", "tifffile")).open(own).backend == "tifffile" else 4
    assert computed(backends=("tifffile",)) == other


def test_a_callers_inference_mode_changes_nothing(slide, network):
    units = _units("circle", 30.0)
    with torch.inference_mode():
        inside = _infer(slide, network, units, 64)
    assert torch.equal(inside, _infer(slide, network, units, 64))
