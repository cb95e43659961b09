"""A converted model gives what the network gives, or is refused; a kept one is never trusted."""

from __future__ import annotations

import hashlib
import io
import logging
import sys

import pytest
import torch

from bundle.errors import InputError
from bundle.inference import runtime
from bundle.inference.runtime import RUNTIMES, build_runtime
from networks import PixNet, SwinEncoder

SIZE = (64, 96)
#: Packages that each converted runtime needs.
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}


def build_network(seed: int = 0) -> PixNet:
    torch.manual_seed(seed)
    net = PixNet(4, SwinEncoder(embed_dim=12, depths=(2, 2), num_heads=(1, 2), window_size=4), (8, 8))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # not the identity, so that evaluation differs from training
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net


@pytest.fixture
def network() -> PixNet:
    return build_network()


def region(*size: int) -> torch.Tensor:
    return torch.randn((1, 3, *(size or SIZE)), generator=torch.Generator().manual_seed(7))


def features(network: PixNet, image: torch.Tensor) -> torch.Tensor:
    training = network.training
    with torch.no_grad():
        result = network.eval().features(image)
    network.train(training)
    return result


def test_torch_takes_any_size_and_leaves_the_mode(network):
    run = build_runtime("torch", network, *SIZE)
    for size in (SIZE, (32, 32), (50, 70)):
        torch.testing.assert_close(run(region(*size)), features(network, region(*size)), rtol=0, atol=0)
    assert network.training


# The real engines (a conversion takes seconds) ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SIZE, (50, 70)], ids=["on the grid", "filled up"])
@pytest.mark.parametrize("name", sorted(NEEDED))
def test_a_converted_model_equals_the_network_and_is_kept(network, name, size, tmp_path, monkeypatch):
    for package in NEEDED[name]:
        pytest.importorskip(package, reason=f"the extra `{name}` is not installed")
    run = build_runtime(name, network, *size, threads=1, cache_dir=tmp_path)
    expected = features(network, region(*size))
    got = run(region(*size))
    assert got.dtype == torch.float32
    spread = (expected.max() - expected.min()).item()
    assert spread > 0.1
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * spread)
    first = got.clone()
    run(torch.zeros_like(region(*size)))  # a result stays what it was when the next region is run
    torch.testing.assert_close(got, first, rtol=0, atol=0)
    assert network.training
    monkeypatch.setattr(runtime, "_convert", None)
    again = build_runtime(name, network, *size, threads=1, cache_dir=tmp_path)
    torch.testing.assert_close(again(region(*size)), first, rtol=0, atol=0)


# What holds for any engine, with one that converts at once ------------------------------------------------------------


class Traced:
    """Stands for an engine: TorchScript."""

    conversions = 0

    def __init__(self, threads: int) -> None:
        pass

    def convert(self, network, image) -> bytes:
        Traced.conversions += 1
        file = io.BytesIO()
        torch.jit.save(torch.jit.trace(runtime._Features(network), image, check_trace=False), file)
        return file.getvalue()

    def load(self, model: bytes):
        module = torch.jit.load(io.BytesIO(model))
        return lambda image: module(torch.from_numpy(image)).detach().numpy()


@pytest.fixture
def engine(monkeypatch) -> str:
    monkeypatch.setitem(runtime._ENGINES, "traced", (Traced, "torch"))
    monkeypatch.setattr(Traced, "conversions", 0)
    return "traced"


def test_another_size_is_refused(network, engine):
    run = build_runtime(engine, network, *SIZE)
    with pytest.raises(InputError, match="1 x 3 x 64 x 96, not 1 x 3 x 96 x 64"):
        run(region(96, 64))


def test_other_weights_and_sizes_are_other_models(network, engine, tmp_path):
    for size in (SIZE, (32, 32), SIZE):
        build_runtime(engine, network, *size, cache_dir=tmp_path / "cache")
    assert Traced.conversions == 2
    torch.nn.init.normal_(network.decoder.bottleneck.weight)
    run = build_runtime(engine, network, *SIZE, cache_dir=tmp_path / "cache")
    torch.testing.assert_close(run(region()), features(network, region()), rtol=0, atol=1e-4)
    names = [path.name for path in (tmp_path / "cache").iterdir()]
    assert Traced.conversions == len(names) == 3
    assert all(name.startswith("traced-") and name.endswith(".model") for name in names)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "a folder", "no model", "unpacked", "planted"])
def test_a_damaged_model_is_made_again(network, engine, tmp_path, damage: str):
    build_runtime(engine, network, *SIZE, cache_dir=tmp_path)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    middle = len(whole) // 2
    if damage == "a folder":
        kept.unlink()
        kept.mkdir()
    elif damage == "no model":  # whole in itself
        runtime.ConvertedModels(tmp_path).write(kept.name, b"none")
    elif damage == "unpacked":
        kept.write_bytes(hashlib.sha256(b"none").digest() + b"none")
    elif damage == "planted":  # another network's under the name of this one
        planted = runtime._convert("traced", Traced(1), build_network(seed=1), region())
        runtime.ConvertedModels(tmp_path).write(kept.name, planted)
    else:
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        kept.write_bytes({"cut": whole[:middle], "flipped": flipped, "empty": b""}[damage])
    Traced.conversions = 0
    run = build_runtime(engine, network, *SIZE, cache_dir=tmp_path)
    assert Traced.conversions == 1
    torch.testing.assert_close(run(region()), features(network, region()), rtol=0, atol=1e-4)
    build_runtime(engine, network, *SIZE, cache_dir=tmp_path)
    assert Traced.conversions == (2 if damage == "a folder" else 1)  # the new one is kept where that is possible


def test_a_cache_that_cannot_be_written_costs_nothing_else(network, engine, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        run = build_runtime(engine, network, *SIZE, cache_dir=tmp_path / "file")
    assert run(region()).isfinite().all()
    assert "could not be kept" in caplog.text


@pytest.mark.parametrize(("error", "says"), [(0.01, "differs from the network by 0.01"), (float("nan"), "by nan")])
def test_a_model_that_differs_is_refused(network, engine, monkeypatch, tmp_path, error: float, says: str):
    load = Traced.load
    monkeypatch.setattr(Traced, "load", lambda self, model: lambda image: load(self, model)(image) + error)
    with pytest.raises(InputError, match=says):
        build_runtime(engine, network, *SIZE, cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_network_that_does_not_convert_is_refused(network, engine, monkeypatch):
    def fail(*_: object) -> bytes:
        raise RuntimeError("no such operator\nand a long trace")

    monkeypatch.setattr(Traced, "convert", fail)
    with pytest.raises(InputError, match=r'for the runtime "traced" \(no such operator\). Choose the runtime torch'):
        build_runtime(engine, network, *SIZE)


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_a_missing_package_names_its_extra(network, name, monkeypatch):
    monkeypatch.setitem(sys.modules, NEEDED[name][-1], None)
    with pytest.raises(InputError, match=rf"{NEEDED[name][-1]} is not installed.*\.\[{name}\]"):
        build_runtime(name, network, *SIZE)


def test_an_unknown_runtime_is_refused(network):
    with pytest.raises(InputError, match="choose torch, onnx or openvino"):
        build_runtime("tensorrt", network, *SIZE)
    assert set(RUNTIMES) == {"torch", *NEEDED}
