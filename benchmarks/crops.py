"""Against the peers' way: a crop of 224 px and a pass of a CNN per unit; a dense map pays for each pixel once.

`python -m benchmarks.crops`: DenseNet-121 in ST-Net's form (He et al. 2020, https://doi.org/10.1038/s41551-020-0578-x)
at its best batch size and runtime, with the same machine, slide and reader; beside it, as fairer rivals, our own
encoder as a crop model and our encoder's frozen features of the dense tiles without a decoder. Crops are read and run
on a sample of units and extrapolated from that rate (marked so). On a generated slide of 10,000 x 10,000 px and, where
its data are, on a section of Her2ST (`section` in the closing line).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets import DenseNet121
from monai.utils.type_conversion import convert_to_tensor

from bundle.inference.memory import keep_freed_memory

from .workload import arguments, default_run, evaluator, finish, phantom_slide, prepared_section, row, workspace

__all__ = ["main"]

CROP_PX = 224
SIZES_UM = (100.0, 55.0, 16.0, 8.0, 2.0)
_WIDTHS = (10, 12, 12, 12, 16, 12, 12)


class _CropModel(torch.nn.Module):
    """A backbone, its last features averaged over the crop, and a linear layer to genes."""

    stride = CROP_PX

    def __init__(self, backbone: Callable[[torch.Tensor], Any], channels: int, genes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.linear = torch.nn.Linear(channels, genes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.backbone(image)
        features = features[-1] if isinstance(features, list) else features
        return self.linear(features.mean((2, 3)))

    features = forward


def _rate(model: torch.nn.Module, read: Callable[[int], torch.Tensor], seconds: float) -> tuple[str, float]:
    """Units a second of a crop model, reading included, with its best batch size and runtime."""
    best = ("", 0.0)
    for name in ("torch", "torch.compile", "openvino"):
        for batch in (1, 8, 32):
            try:
                compute = _compute(name, model, batch)
                compute(read(batch))
            except (ImportError, RuntimeError) as error:  # a runtime that is not there, or cannot run this model
                print(
                    f"  {name}, batch {batch}: not measured ({type(error).__name__}: {str(error).splitlines()[0][:80]})"
                )
                break
            done, started = 0, time.perf_counter()
            while time.perf_counter() - started < seconds:
                compute(read(batch))
                done += batch
            rate = done / (time.perf_counter() - started)
            print(f"  {name}, batch {batch}: {rate:.1f} units/s")
            best = max(best, (f"{name}, batch {batch}", rate), key=lambda found: found[1])
    return best


def _compute(name: str, model: torch.nn.Module, batch: int) -> Callable[[torch.Tensor], Any]:
    if name == "openvino":
        import openvino as ov

        example = torch.zeros(batch, 3, CROP_PX, CROP_PX)
        converted = ov.convert_model(model, example_input=example, input=[list(example.shape)])
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = ov.Core().compile_model(converted, "CPU", options)
        return lambda image: compiled(image.numpy())[0]
    run = torch.compile(model) if name == "torch.compile" else model

    def compute(image: torch.Tensor) -> Any:
        with torch.inference_mode():
            return run(image)

    return compute


def _dense(slide: Path, run: Path, work: Path, size_um: float, runtime: str) -> tuple[int, float]:
    """Units and seconds of the whole pipeline at one size."""
    units = {"spot_um": size_um, "pitch_um": size_um} if size_um >= 55 else {"bin_um": size_um}
    out = str(work / f"dense_{size_um:g}.zarr")
    engine, _ = evaluator(slide, run, work, **units, output=out, runtime=runtime)
    started = time.perf_counter()
    engine.run()
    seconds = time.perf_counter() - started
    import zarr

    return int(zarr.open_group(out, mode="r")["obsm/spatial"].shape[0]), seconds  # type: ignore[union-attr]


def _encoder_only(slide: Path, work: Path) -> float:
    """Seconds of the pipeline with the encoder's finest features for the decoder's map, and without the ridge."""
    without: dict[str, Any] = {"network_def#texture": None}
    run = default_run(work, **without)
    engine, parser = evaluator(slide, run, work, spot_um=100.0, pitch_um=100.0)
    network = parser.get_parsed_content("network")

    def decode(image: torch.Tensor) -> torch.Tensor:
        finest = network.encoder(image)[0]
        return torch.nn.functional.pad(finest, (0, 0, 0, 0, 0, network.channels - finest.shape[1]))

    network.decode = decode
    started = time.perf_counter()
    engine.run()
    return time.perf_counter() - started


def _crops(slide: Path, run: Path, work: Path, seconds: float) -> tuple[str, float, float]:
    """How DenseNet-121 is fastest on crops of a slide, its units a second so, and those of our own encoder."""
    _, config = evaluator(slide, run, work)
    network, transform = config.get_parsed_content("network").eval(), config.get_parsed_content("preprocessing")
    opened, mpp = config.get_parsed_content("reader").open(str(slide)), config["mpp"]
    # x and y of a crop's corner
    last = np.array(opened.level_dimensions[0]) * opened.mpp / mpp - CROP_PX
    rng = np.random.default_rng(0)

    def read(batch: int) -> torch.Tensor:
        corners = (rng.random((batch, 2)) * last).astype(int)
        crops = [opened.read_region(*corner, CROP_PX, CROP_PX, mpp) for corner in corners]
        tensors = [transform(c.transpose(2, 0, 1).astype("float32")) for c in crops]
        return torch.stack([convert_to_tensor(t, track_meta=False) for t in tensors])  # plain ones: faster to compute

    torch.manual_seed(0)
    densenet = DenseNet121(2, 3, 250).eval()
    print("DenseNet-121 on crops:")
    how, rate = _rate(_CropModel(densenet.features, 1024, 250).eval(), read, seconds)
    # the crop is the nearest size that the encoder's windows divide
    print("our encoder on crops:")
    _, own_rate = _rate(_CropModel(_padded(network), network.encoder.channels[-1], 250).eval(), read, seconds)
    return how, rate, own_rate


def _table(slide: Path, run: Path, work: Path, runtime: str, rate: float, own_rate: float) -> dict[str, float]:
    """One slide's pipeline at every size against the rates of crops."""
    _dense(slide, run, work, 100.0, runtime)
    bare = _encoder_only(slide, work)
    print(f"{slide.name}: dense with {runtime}; encoder without decoder {bare:.2f} s")
    row("units", "number", "dense s", "dense/s", "crops s", "ratio", "own encoder", widths=_WIDTHS)
    result: dict[str, float] = {}
    for size_um in SIZES_UM:
        n, wall = _dense(slide, run, work, size_um, runtime)
        ratio, own = n / wall / rate, n / wall / own_rate
        result |= {f"ratio_{size_um:g}um": ratio, f"ratio_own_encoder_{size_um:g}um": own}
        row(f"{size_um:g} µm", n, wall, n / wall, f"{n / rate:.0f} (rate)", ratio, own, widths=_WIDTHS)
    cheaper = rate * _dense(slide, run, work, 100.0, runtime)[1]
    print(f"DenseNet crops are cheaper for fewer than {cheaper:.0f} units on this slide")
    return {**result, "encoder_only_s": bare}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each measured rate")
    parser.add_argument("--runtime", default="torch", help="of the dense network")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    with workspace(args.work) as work:
        phantom, run = phantom_slide(work, 2000 if args.quick else 10_000), default_run(work)
        section = None if args.quick else prepared_section(work)
        keep_freed_memory()
        # a crop costs the same on every slide
        how, rate, own_rate = _crops(phantom, run, work, 1.0 if args.quick else args.seconds)
        print(f"DenseNet-121 on crops: {how}, {rate:.1f} units/s; our encoder on crops: {own_rate:.1f}")
        result: dict[str, Any] = dict(_table(phantom, run, work, args.runtime, rate, own_rate))
        if section is not None:
            result["section"] = _table(section[0], run, work, args.runtime, rate, own_rate)
    finish(result)
    return result


def _padded(network: Any) -> Callable[[torch.Tensor], Any]:
    """The encoder on crops filled up to its grid."""

    def encode(image: torch.Tensor) -> Any:
        fill = -CROP_PX % network.grid_px
        return network.encoder(torch.nn.functional.pad(image, (0, fill, 0, fill), mode="replicate"))

    return encode


if __name__ == "__main__":
    main()
