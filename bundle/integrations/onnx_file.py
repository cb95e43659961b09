"""A trained model as one ONNX file, for programs that are not Python."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch

from ..data.normalisation import MAX_LOG_CP10K
from ..data.panel import load_panel
from ..errors import InputError
from ..files.atomic import replacing
from ..files.ownership import check_output
from ..inference.provenance import model_sha256
from ..version import bundle_version
from ..workflows.load_network import load_network

__all__ = ["SIZE_PX", "export_onnx", "onnx_session"]

#: Default side of the exported region, rounded up to the network's grid.
SIZE_PX = 1024
#: Largest difference from PyTorch, as a share of the range of its values, that an exported model may have.
TOLERANCE = 1e-4

_OPSET = 18

logger = logging.getLogger(__name__)


class _Expression(torch.nn.Module):
    """From an image to expression: y, and the rate where the head gives one."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.network.features(image).movedim(1, -1)
        found = (self.network.project(features).clamp(0, MAX_LOG_CP10K), self.network.rate(features))
        return tuple(value.movedim(-1, 1) for value in found if value is not None)


def export_onnx(run: str | Path, out: str | Path, size_px: int | None = None, trust: bool = False) -> Path:
    """Write the model as ONNX for regions of one size, after comparing it with PyTorch on a random region.

    Input `image`: float32 (1, 3, size_px, size_px), RGB in 0..255 at `mpp` less `intensity_mean`, over
    `intensity_std`. Output `pred`: log1p of counts per 10,000, (1, genes, size_px / stride_px, ...). A head with
    rates also gives `rate_per_um2`, counts per µm² of each gene and, last, of all others. Map pixels nearer than
    `halo_px` to an edge differ from what the slide's next tile would give there. The file's `metadata_props` hold these
    and the genes.

    Args:
        run: the run folder.
        out: the .onnx to write.
        size_px: side of the region, a multiple of the network's grid; 1024 rounded up to it by default.
        trust: whether the model may run code of its own.

    Raises:
        InputError: if the folder is no run, the size does not suit, packages are missing, or the results differ.
    """
    out = Path(out)
    if out.suffix != ".onnx":
        raise InputError(f"{out}: an export is written as ONNX; end its name in .onnx.")
    if out.is_dir():
        raise InputError(f"{out} is a folder; give the name of the file to write.")
    check_output(out)
    network, config = load_network(run, trust)
    grid = network.grid_px
    if size_px is None:
        size_px = -(-SIZE_PX // grid) * grid
    if size_px <= 0 or size_px % grid:
        raise InputError(f"A region of {size_px} px does not suit the network: give a multiple of {grid} px.")
    image = torch.randn((1, 3, size_px, size_px), generator=torch.Generator().manual_seed(0))
    model = _Expression(network).eval()
    with torch.no_grad():
        expected = model(image)
    proto = _onnx_model(model, image, ["pred", "rate_per_um2"][: len(expected)])
    for key, value in _about(Path(run), network, config, size_px).items():
        proto.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    content = proto.SerializeToString()
    found = onnx_session(content, torch.get_num_threads())(image.numpy())
    for got, wanted in zip(found, expected, strict=True):
        _check_equal(torch.from_numpy(got), wanted)
    try:
        with replacing(out) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise InputError(f"Nothing can be written to {out} ({error.strerror}); choose another place.") from error
    return out


def _about(run: Path, network: Any, config: dict[str, Any], size_px: int) -> dict[str, Any]:
    """What a program must know to use the file: text, or values that become JSON."""
    intensity = cast(dict, config["intensity"])
    return {
        "pixnet_version": bundle_version(),
        "genes": load_panel(run / "models" / "panel.json").genes,
        "unit_of_pred": "log1p of counts per 10,000",
        "head": config["head"],
        "mpp": config["mpp"],
        "size_px": size_px,
        "stride_px": network.stride,
        "grid_px": network.grid_px,
        "halo_px": network.halo_px,
        "intensity_mean": intensity["mean"],
        "intensity_std": intensity["std"],
        "checkpoint_sha256": model_sha256(run / "models" / "model.pt"),
        "intended_use": "Research only. Not for diagnosis or any clinical decision.",
    }


def onnx_session(model: bytes, threads: int) -> Callable[[np.ndarray], list[np.ndarray]]:
    """ONNX Runtime on the CPU: from `image` to the model's outputs.

    Raises:
        InputError: if the packages of the extra `onnx` are missing.
    """
    onnxruntime: Any = _import("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})


def _onnx_model(network: torch.nn.Module, image: torch.Tensor, outputs: Sequence[str]) -> Any:
    """`network(image)` as an `onnx.ModelProto` for the size of `image`; its input is called `image`."""
    _import("onnx")
    _import("onnxscript")
    with _quietly(), torch.no_grad():
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


def _check_equal(got: torch.Tensor, expected: torch.Tensor) -> None:
    """Refuse an exported model that does not give the network's values.

    Raises:
        InputError: if shapes differ, or any value by more than `TOLERANCE` of the range of the network's.
    """
    if got.shape != expected.shape:
        raise InputError(
            f"The ONNX model gives an array of {tuple(got.shape)}, the network one of {tuple(expected.shape)}. "
            "PixNet did not write it."
        )
    difference = (got - expected).abs().max().item()
    spread = (expected.max() - expected.min()).item()
    if not difference <= TOLERANCE * max(spread, torch.finfo(torch.float32).tiny):  # also where either is not finite
        raise InputError(
            f"The ONNX model differs from the network by {difference:.2g}; the network's values span {spread:.2g}. "
            "PixNet did not write it."
        )
    logger.info("ONNX: largest difference from PyTorch %.1e of the values' range", difference / (spread or 1))


def _import(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"{package} is not installed (or does not work: {error}): pip install '.[onnx]' in a clone of PixNet."
        ) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporter: tracers warn of every Python number in a network, and the result is checked afterwards."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
