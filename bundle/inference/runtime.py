"""What runs a network's map over a region: PyTorch, or a model converted for a faster engine on the CPU."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from monai.networks.utils import eval_mode

from ..errors import InputError
from .converted import ConvertedModels, fingerprint

__all__ = ["RUNTIMES", "Runtime", "build_runtime", "check_equal", "onnx_model", "onnx_session"]

#: A region, float32 (1, 3, H, W) -> the network's map of it, float32 (1, C, H / stride, W / stride).
Runtime = Callable[[torch.Tensor], torch.Tensor]

RUNTIMES = ("torch", "onnx", "openvino")

#: Largest difference from PyTorch, as a share of the range of its values, that a converted model may have.
TOLERANCE = 1e-4

_OPSET = 18

logger = logging.getLogger(__name__)


def build_runtime(
    name: str,
    network: torch.nn.Module,
    height_px: int,
    width_px: int,
    threads: int | None = None,
    cache_dir: str | Path | None = None,
) -> Runtime:
    """Something that computes `network.features` of a region, in evaluation.

    `torch` is the network itself, for regions of any size. `onnx` (ONNX Runtime) and `openvino` convert it for one size
    and the CPU, with the weights that it has now: build them after the checkpoint is loaded. A converted model is
    compared with the network on a random region before it is used; a kept one too, which may have come with a
    stranger's run. The result serves one thread at a time.

    Args:
        name: one of `RUNTIMES`.
        network: with `features` and `stride`, such as `networks.PixNet`.
        height_px: of the region, in working pixels.
        width_px: likewise.
        threads: of a converted model; as many as torch uses by default.
        cache_dir: folder that keeps converted models, under names that change with weights, size and versions.

    Raises:
        InputError: if there is no such runtime, its packages are missing, or the network cannot be converted for it
            with the same result; and by the runtime, if a region is of another size.
    """
    network = getattr(network, "module", network)  # the distributed wrapper has no `features`
    if name == "torch":
        return _torch_runtime(network)
    if name not in _ENGINES:
        raise InputError(f'There is no runtime "{name}": choose {", ".join(RUNTIMES[:-1])} or {RUNTIMES[-1]}.')
    engine, package = _ENGINES[name]
    version = _import(package, name).__version__
    if next(network.parameters()).device.type != "cpu":
        raise InputError(f'The runtime "{name}" is for the CPU: set device to cpu, or runtime to torch.')
    model = engine(torch.get_num_threads() if threads is None else int(threads))
    shape = (1, 3, int(height_px), int(width_px))
    cache = ConvertedModels(cache_dir)
    turns = getattr(network, "test_time_augmentation", (0,))
    key = f"{name}-{fingerprint(network, name, version, torch.__version__, shape, turns)}.model"
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with eval_mode(network), torch.no_grad():
        expected = cast(Any, network).features(image)

    def checked(converted: bytes) -> Runtime:
        run = model.load(converted)
        check_equal(name, torch.from_numpy(run(image.numpy())), expected)
        return _fixed_size(run, shape)

    kept = cache.read(key)
    if kept is not None:
        try:
            return checked(kept)
        except Exception as error:  # another network, or whatever an engine says of a model that it cannot use
            logger.warning("The model kept in %s cannot be used (%s): it is made again.", cache_dir, error)
    converted = _convert(name, model, network, image)
    run = checked(converted)
    cache.write(key, converted)
    return run


def onnx_model(network: torch.nn.Module, image: torch.Tensor, outputs: Sequence[str]) -> Any:
    """`network(image)` as an `onnx.ModelProto` for the size of `image`; its input is called `image`.

    Raises:
        InputError: if the packages of the extra `onnx` are missing.
    """
    _import("onnx", "onnx")
    _import("onnxscript", "onnx")
    with _quietly(), eval_mode(network), torch.no_grad():
        program = torch.onnx.export(
            network,
            (image,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["image"],
            output_names=list(outputs),
            verbose=False,
        )
    return cast(Any, program).model_proto


def onnx_session(model: bytes, threads: int) -> Callable[[np.ndarray], list[np.ndarray]]:
    """ONNX Runtime on the CPU: from `image` to the model's outputs.

    Raises:
        InputError: if the packages of the extra `onnx` are missing.
    """
    onnxruntime: Any = _import("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})


def check_equal(name: str, got: torch.Tensor, expected: torch.Tensor) -> None:
    """Refuse the result of a converted model that is not the network's.

    Raises:
        InputError: if shapes differ, or any value by more than `TOLERANCE` of the range of the network's.
    """
    if got.shape != expected.shape:
        raise InputError(
            f'The model converted for "{name}" gives a map of {tuple(got.shape)} where the network gives '
            f"{tuple(expected.shape)}: it is not used."
        )
    difference = (got - expected).abs().max().item()
    spread = (expected.max() - expected.min()).item()
    if not difference <= TOLERANCE * max(spread, torch.finfo(torch.float32).tiny):  # also where either is not finite
        raise InputError(
            f'The model converted for "{name}" differs from the network by {difference:.2g} where values spread over '
            f"{spread:.2g}: it is not used."
        )
    logger.info("runtime %s: largest difference from torch %.1e of the values' range", name, difference / (spread or 1))


def _torch_runtime(network: Any) -> Runtime:
    def run(image: torch.Tensor) -> torch.Tensor:
        with eval_mode(network), torch.inference_mode():
            return network.features(image)

    return run


class _Features(torch.nn.Module):
    """`network.features` as the `forward` that converters ask for."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return cast(Any, self.network).features(image)


class _Onnx:
    def __init__(self, threads: int) -> None:
        self.threads = threads

    def convert(self, network: torch.nn.Module, image: torch.Tensor) -> bytes:
        return onnx_model(_Features(network), image, ["features"]).SerializeToString()

    def load(self, model: bytes) -> Callable[[np.ndarray], np.ndarray]:
        session = onnx_session(model, self.threads)
        return lambda image: session(image)[0]


class _OpenVino:
    def __init__(self, threads: int) -> None:
        self.options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
        }

    def convert(self, network: torch.nn.Module, image: torch.Tensor) -> bytes:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        # Unfrozen, the traced sizes of feature maps are taken for unknown and a layer norm's do not fit.
        traced = torch.jit.freeze(torch.jit.trace(_Features(network), image, check_trace=False))
        # The same as `openvino.convert_model`, which would send usage statistics over the network.
        frontend, decoder = FrontEndManager().load_by_framework("pytorch"), TorchScriptPythonDecoder(traced)
        model = frontend.convert(frontend.load(decoder))
        model.reshape({model.inputs[0]: list(image.shape)})
        return openvino.Core().compile_model(model, "CPU", self.options).export_model().getvalue()

    def load(self, model: bytes) -> Callable[[np.ndarray], np.ndarray]:
        import openvino

        compiled = openvino.Core().import_model(model, "CPU", self.options)
        return lambda image: compiled([image], share_inputs=True)[0]


_ENGINES: dict[str, tuple[type[_Onnx] | type[_OpenVino], str]] = {
    "onnx": (_Onnx, "onnxruntime"),
    "openvino": (_OpenVino, "openvino"),
}


def _import(package: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"{package} is not installed (or does not work: {error}): pip install '.[{extra}]' in a clone of "
            "PixNet. Predictions do without it (runtime torch)."
        ) from error


def _convert(name: str, model: _Onnx | _OpenVino, network: torch.nn.Module, image: torch.Tensor) -> bytes:
    try:
        with _quietly(), eval_mode(network), torch.no_grad():
            return model.convert(network, image)
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f'The network could not be converted for the runtime "{name}" ({reason}). Choose the runtime torch.'
        ) from error


def _fixed_size(run: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> Runtime:
    def checked(image: torch.Tensor) -> torch.Tensor:
        if tuple(image.shape) != shape:
            raise InputError(
                f"This model was converted for regions of {' x '.join(map(str, shape))}, not "
                f"{' x '.join(map(str, image.shape))}: build it for that size, or choose the runtime torch."
            )
        pixels = image.detach().as_subclass(torch.Tensor).to("cpu", torch.float32).contiguous()
        return torch.from_numpy(run(pixels.numpy()))

    return checked


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Tracers warn of every Python number in a network; that the result is right is checked after."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
