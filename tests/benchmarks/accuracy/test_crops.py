from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose

from benchmarks.accuracy.crops import CropInferer, UnitCrops
from benchmarks.stnet import CropNet
from bundle.data.fit_panel import fit_panel
from bundle.data.manifest import read_split
from bundle.data.slide_dataset import SlideDataset
from transforms import RasterizeUnitsd, ReadRegiond, SlideReader


class Means(torch.nn.Module):
    """An encoder that tells a crop's colours."""

    channels = (3,)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [torch.nn.functional.avg_pool2d(image, 8)]


def crops(data: Path) -> tuple[UnitCrops, Any]:
    records, reader = read_split(data, "training"), SlideReader()
    panel = fit_panel(records)
    keys = ["target", "total", "size_factor", "normalised"]
    transform = Compose(
        [
            ReadRegiond("image", mpp=2.0, reader=reader),
            RasterizeUnitsd("label", image_key="image", vector_keys=keys),
        ]
    )
    return UnitCrops(records, panel, reader, transform, mpp=2.0, crop_px=64), panel


def test_an_epoch_shows_every_unit_once_in_an_order_of_its_own(spots: Path) -> None:
    dataset, _ = crops(spots)
    totals = []
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        samples = [dataset[i] for i in range(len(dataset))]
        assert all(len(s["total"]) == 1 and s["image"].shape == (3, 64, 64) for s in samples)
        totals.append([float(s["total"]) for s in samples])
    assert totals[0] != totals[1]
    slides = dataset._slides
    expected = np.concatenate([u.total[keep] for s in slides for u, keep in zip(s.layers, s.taught, strict=True)])
    np.testing.assert_allclose(sorted(totals[0]), sorted(expected))


def test_prediction_looks_at_the_crops_that_training_saw(spots: Path) -> None:
    dataset, panel = crops(spots)
    net = CropNet(len(panel), Means(), crop_px=64).eval()
    slides = SlideDataset(dataset.data, SlideReader(), panel)
    inferer = CropInferer(SlideReader(), lambda image: image, mpp=2.0, batch_size=7)
    pooled = {
        float(t): f
        for i in range(len(slides))
        for t, f in zip(slides[i]["units"].total, inferer(slides[i], net), strict=True)
    }
    dataset.set_epoch(1)
    for i in range(0, len(dataset), 5):
        sample = dataset[i]
        with torch.no_grad():
            trained = net.pool(net.features(sample["image"][None]), torch.as_tensor(sample["label"])[None])
        torch.testing.assert_close(pooled[float(sample["total"])], trained[0])
