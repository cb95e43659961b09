"""Exports against PyTorch: how far apart, and how fast, on a region.

`python -m benchmarks.export [--work DIR] [--model RUN]`: ONNX as `pixnet export` writes it and TorchScript as the model
card's command traces it, of one region (1024 px) of a generated slide. Without a model, the default network with
weights drawn from a seed: speed does not depend on what was learned, the differences are of its own values' range.
PyTorch keeps freed memory, as in `pixnet predict`. Times are of calls in turn, ratios medians over the turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ckpt_export

from bundle.config.root import bundle_root
from bundle.errors import InputError
from bundle.integrations.onnx_file import SIZE_PX, export_onnx, onnx_session
from bundle.speed.memory import keep_freed_memory
from bundle.workflows.load_network import load_network

from .workload import arguments, default_run, evaluator, finish, phantom_slide, quiet, row, workspace

__all__ = ["main", "torchscript"]

_Form = Callable[[torch.Tensor], np.ndarray]


def torchscript(bundle: Path, out: Path, size_px: int, run: Path | None = None) -> Any:
    """A bundle's network, or a run's, traced by MONAI for regions of one size."""
    models = (run or bundle) / "models"
    files = [bundle / "configs" / "inference.json", *([run / "configs" / "model.json"] if run else [])]
    ckpt_export(
        "network_def",
        filepath=str(out),
        ckpt_file=str(models / "model.pt"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=[str(file) for file in files],
        bundle_root=str(bundle),
        model_dir=str(models),
        use_trace=True,
        input_shape=[1, 3, size_px, size_px],
    )
    return torch.jit.load(out)


def _onnx(run: Path, out: Path, size_px: int, threads: int) -> _Form | None:
    """The exported file in ONNX Runtime, or None, after a message, if its packages are missing."""
    try:
        session = onnx_session(export_onnx(run, out, size_px).read_bytes(), threads)
    except InputError as error:
        print(f"ONNX was not measured: {error}")
        return None
    return lambda image: session(image.numpy())[0]


def _seconds(forms: dict[str, _Form], image: torch.Tensor, times: int) -> dict[str, list[float]]:
    """Seconds of each form, called in turn; without the first two calls of each, which plan."""
    found: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(times + 2):
        for name, compute in forms.items():
            started = time.perf_counter()
            compute(image)
            if turn >= 2:
                found[name].append(time.perf_counter() - started)
    return found


def _ratio(over: Sequence[float], under: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it."""
    parser = arguments(__doc__)
    parser.add_argument("--model", help="a trained run; the default network with random weights by default")
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    with workspace(args.work) as work, quiet():
        run = Path(args.model) if args.model else default_run(work)
        network, config = load_network(run)
        size_px = 2 * network.grid_px if args.quick else -(-SIZE_PX // network.grid_px) * network.grid_px
        runs = 2 if args.quick else args.runs
        slide = phantom_slide(work, 1500 if args.quick else 5000)
        _, parsed = evaluator(slide, run, work)
        pixels = parsed.get_parsed_content("reader").open(str(slide)).read_region(0, 0, size_px, size_px, config["mpp"])
        normalise = parsed.get_parsed_content("preprocessing")
        image = torch.as_tensor(normalise(pixels.transpose(2, 0, 1).astype("float32"))).as_subclass(torch.Tensor)[None]
        weights = f"weights of {run}" if args.model else "random weights (seed 0), for no model was given"
        print(f"region of {size_px} px of {slide.name} at {config['mpp']:g} µm/px, {weights}, threads: {args.threads}")

        traced = torchscript(bundle_root(), work / "model.ts", size_px, run)
        forms: dict[str, _Form] = {"PyTorch": lambda x: network(x).numpy(), "TorchScript": lambda x: traced(x).numpy()}
        onnx = _onnx(run, work / "model.onnx", size_px, args.threads)
        if onnx is not None:
            forms["ONNX Runtime"] = onnx
        result: dict[str, Any] = {}
        with torch.inference_mode():
            values = {name: compute(image) for name, compute in forms.items()}
            seconds = _seconds(forms, image, runs)
        span = float(np.ptp(values["PyTorch"]))
        row("", "largest diff", "of the range", "ms", "eager/this")
        for name in forms:
            key, difference = name.split()[0].lower(), float(np.abs(values[name] - values["PyTorch"]).max())
            speed = _ratio(seconds["PyTorch"], seconds[name])
            row(name, f"{difference:.1e}", f"{difference / span:.1e}", 1e3 * statistics.median(seconds[name]), speed)
            if name != "PyTorch":
                result |= {f"{key}_diff": difference, f"{key}_diff_of_range": difference / span, f"{key}_speed": speed}
        print(f"range of the network's values: {span:.3g}")
    finish(result)
    return result


if __name__ == "__main__":
    main()
