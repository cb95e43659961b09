from __future__ import annotations

import numpy as np
import torch

from benchmarks.accuracy.head_alone import HeadInferer
from bundle.data.manifest import read_split
from bundle.data.panel import load_panel
from bundle.data.slide_dataset import SlideDataset
from bundle.inference import SlideInferer
from bundle.workflows.load_network import load_network
from transforms import RasterizeUnits, SlideReader


def test_the_head_predicts_and_the_ridge_does_not(tiny_run, phantom):
    network = load_network(tiny_run)[0]
    reader, panel = SlideReader(), load_panel(tiny_run / "models" / "panel.json")
    slide = SlideDataset(read_split(phantom, "test"), reader, panel)[0]
    own = (reader, lambda image: (image - 127) / 64, RasterizeUnits(drop_cut=False), 2.0)
    with torch.inference_mode():
        both, alone = SlideInferer(*own)(slide, network), HeadInferer(*own)(slide, network)
        head = network.head.project(both[:, : network.head.channels])
        np.testing.assert_allclose(network.project(alone), head, atol=1e-6)
        assert not np.allclose(network.project(both), head, atol=1e-4)
