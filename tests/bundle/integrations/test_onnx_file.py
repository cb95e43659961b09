"""An exported ONNX file gives what the network gives and says what one must know to use it."""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
import pytest
import torch

from bundle.cli.main import main
from bundle.errors import InputError
from bundle.integrations.onnx_file import _check_equal, _Expression, export_onnx
from bundle.workflows.load_network import load_network
from networks import PixNet, SwinEncoder


def test_the_weights_are_the_runs(tiny_run):
    network, config = load_network(tiny_run)
    state = torch.load(tiny_run / "models" / "model.pt", weights_only=True, map_location="cpu")
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not network.training
    assert config["network_def"]["decoder_channels"] == [8, 8]


def test_the_file_gives_the_networks_expression_and_explains_itself(tiny_run, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    path = export_onnx(tiny_run, tmp_path / "new" / "model.onnx", 96)
    network, config = load_network(tiny_run)
    image = torch.randn((1, 3, 96, 96), generator=torch.Generator().manual_seed(3))
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("image", [1, 3, 96, 96])]
    assert [o.name for o in session.get_outputs()] == ["pred"]
    with torch.no_grad():
        expected = network(image).numpy()
    (got,) = session.run(None, {"image": image.numpy()})
    assert np.abs(got - expected).max() <= 1e-4 * np.ptp(expected)

    onnx.checker.check_model(onnx.load(path))
    about = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    panel = json.loads((tiny_run / "models" / "panel.json").read_text())
    assert json.loads(about["genes"]) == panel["genes"]
    assert len(panel["genes"]) == got.shape[1]
    assert json.loads(about["mpp"]) == 2.0
    assert json.loads(about["stride_px"]) == 4 == image.shape[-1] // got.shape[-1]
    assert json.loads(about["halo_px"]) == network.halo_px > 0
    assert json.loads(about["intensity_mean"]) == config["intensity"]["mean"]
    assert json.loads(about["intensity_std"]) == config["intensity"]["std"]
    assert about["checkpoint_sha256"] == hashlib.sha256((tiny_run / "models" / "model.pt").read_bytes()).hexdigest()


def test_a_head_that_knows_rates_gives_them_too():
    encoder = SwinEncoder(embed_dim=12, depths=(2, 2), num_heads=(1, 2), window_size=4)
    network = PixNet(5, encoder, (8, 8), head="programs", n_programs=3).eval()
    image = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        pred, rate = _Expression(network)(image)
        torch.testing.assert_close(pred, network(image))
    assert rate.shape == (1, 6, 16, 8)
    torch.testing.assert_close(torch.log1p(1e4 * rate[:, :-1] / rate.sum(1, keepdim=True)), pred)


@pytest.mark.parametrize("size_px", [100, 0, -32])
def test_a_size_off_the_grid_is_refused(tiny_run, tmp_path, capsys, size_px: int):
    assert main(["export", str(tiny_run), str(tmp_path / "m.onnx"), "--size-px", str(size_px)]) == 2
    assert "give a multiple of 32 px" in capsys.readouterr().err


def test_places_that_cannot_be_are_refused(tiny_run, tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match=r"end its name in \.onnx"):
        export_onnx(tiny_run, tmp_path / "m.pt")
    with pytest.raises(InputError, match="is a folder"):
        export_onnx(tiny_run, tmp_path / "folder.onnx")
    with pytest.raises(InputError, match="pixnet train"):
        export_onnx(tmp_path, tmp_path / "m.onnx")


def test_missing_packages_name_their_extra(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"\.\[onnx\]"):
        export_onnx(tiny_run, tmp_path / "m.onnx", 96)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("got", "says"),
    [
        (torch.arange(6.0), None),
        (torch.arange(6.0) + 4e-4, None),
        (torch.arange(6.0) + 6e-4, "differs from the network by 0.0006; the network's values span 5"),
        (torch.arange(6.0) * float("nan"), "differs"),
        (torch.arange(5.0), "gives an array of"),
    ],
)
def test_a_model_that_gives_other_values_is_not_written(got, says):
    if says is None:
        _check_equal(got, torch.arange(6.0))
        return
    with pytest.raises(InputError, match=says):
        _check_equal(got, torch.arange(6.0))
