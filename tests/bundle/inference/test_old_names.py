"""Commands and configurations of earlier versions still mean what they meant, or say what to do instead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bundle.inference.old_names import current_settings

from bundle.data.manifest import read_split
from bundle.data.panel import fit_panel
from bundle.errors import InputError
from bundle.writers.prediction import PredictionWriter


class _Network:
    stride = 4

    def affine(self):
        return torch.eye(3), torch.zeros(3)

    def project(self, pooled):
        return pooled


def test_settings_have_todays_names():
    assert current_settings({"bounded": False, "runtime": "torch", "bin_um": 8.0}) == {"clip": False, "bin_um": 8.0}
    assert current_settings({"runtime": None}) == {}
    with pytest.raises(InputError, match=r'no runtime "onnx" any more: .* Leave --runtime out'):
        current_settings({"runtime": "onnx"})


def test_a_writer_finds_the_network_of_a_configuration_that_names_its_methods(phantom, tmp_path):
    panel = fit_panel(read_split(phantom, "training"), min_total=1)
    network = _Network()
    kept = {"mpp": 2.0, "model_file": str(tmp_path / "model.pt")}
    old = {"project": network.project, "rate": None, "stride": 4, "bounded": False}
    writer = PredictionWriter(str(tmp_path / "o"), panel, **kept, **old)
    assert writer.network is network
    assert not writer.clip
    assert np.isclose(writer.provenance.resolution_um, 8.0)
    with pytest.raises(TypeError, match="no parameter colour"):
        PredictionWriter(str(tmp_path / "o"), panel, network, **kept, colour=1)
    with pytest.raises(TypeError, match="needs the network"):
        PredictionWriter(str(tmp_path / "o"), panel, **kept)
