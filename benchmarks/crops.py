"""Speed of a dense map against one CNN pass on a crop of 224 px per unit, as other tools do it.

`python -m benchmarks.crops`: DenseNet-121 in ST-Net's form (He et al. 2020, https://doi.org/10.1038/s41551-020-0578-x)
at its best batch size and runtime, with the same machine, slide and reader. Two fairer rivals are our own encoder as a
crop model, and our encoder's frozen features of the dense tiles without a decoder. Where it takes minutes, a crop of
every unit is read and run. Where it would take longer, and for our own encoder, the time is extrapolated from the rate
on a sample of the same slide (marked so). The slides are a generated one of 10,000 x 10,000 px and, where its data are
present, a section of Her2ST (`section` in the closing line).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from monai.networks.nets import DenseNet121
from monai.utils.type_conversion import convert_to_tensor

from bundle.speed.memory import keep_freed_memory

from .workload import arguments, default_run, evaluator, finish, phantom_slide, prepared_section, row, workspace

__all__ = ["main"]

CROP_PX = 224
SIZES_UM = (100.0, 55.0, 16.0, 8.0, 2.0)
_WIDTHS = (10, 12, 12, 12, 16, 12, 12, 12, 12)


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


def _rate(
    model: torch.nn.Module, read: Callable[[np.ndarray], torch.Tensor], places: np.ndarray, seconds: float
) -> tuple[str, int, float]:
    """The runtime and batch size with which a crop model does most units per second, reading included; and how many."""
    best = ("", 0, 0.0)
    for name in ("torch", "torch.compile", "openvino"):
        for batch in (1, 8, 32):
            try:
                compute = _compute(name, model, batch)
                rate = _sampled(compute, batch, read, places, seconds)
            except (ImportError, RuntimeError) as error:  # a runtime that is not there, or cannot run this model
                print(
                    f"  {name}, batch {batch}: not measured ({type(error).__name__}: {str(error).splitlines()[0][:80]})"
                )
                break
            print(f"  {name}, batch {batch}: {rate:.1f} units/s")
            best = max(best, (name, batch, rate), key=lambda found: found[2])
    return best


def _sampled(
    compute: Callable[[torch.Tensor], Any],
    batch: int,
    read: Callable[[np.ndarray], torch.Tensor],
    places: np.ndarray,
    seconds: float,
) -> float:
    """Units per second on units drawn at random, once warm."""
    rng = np.random.default_rng(0)
    compute(read(rng.choice(places, batch)))
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        compute(read(rng.choice(places, batch)))
        done += batch
    return done / (time.perf_counter() - started)


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


def _dense(slide: Path, run: Path, work: Path, size_um: float) -> tuple[np.ndarray, float]:
    """Centres of all units, level-0 pixels (U, 2), and seconds of the whole pipeline at one size."""
    engine, _, out = _pipeline(slide, run, work, size_um)
    seconds = _seconds(engine)
    return zarr.open_group(out, mode="r")["obsm/spatial"][:], seconds  # type: ignore[index, return-value]


def _frozen(slide: Path, work: Path, size_um: float) -> float:
    """Seconds of the pipeline with the encoder's finest features for the decoder's map, and without the ridge."""
    without: dict[str, Any] = {"network_def#texture": None}
    engine, parser, _ = _pipeline(slide, default_run(work, **without), work, size_um)
    network = parser.get_parsed_content("network")

    def decode(image: torch.Tensor) -> torch.Tensor:
        finest = network.encoder(image)[0]
        return torch.nn.functional.pad(finest, (0, 0, 0, 0, 0, network.channels - finest.shape[1]))

    network.decode = decode
    return _seconds(engine)


def _pipeline(slide: Path, run: Path, work: Path, size_um: float) -> tuple[Any, Any, str]:
    units = {"spot_um": size_um, "pitch_um": size_um} if size_um >= 55 else {"bin_um": size_um}
    out = str(work / f"dense_{size_um:g}.zarr")
    engine, parser = evaluator(slide, run, work, **units, output=out)
    return engine, parser, out


def _seconds(engine: Any) -> float:
    started = time.perf_counter()
    engine.run()
    return time.perf_counter() - started


class _Crops:
    """Crop models on one slide.

    Args:
        slide: the slide.
        run: the run folder of our own model.
        work: folder to work in.
        places: centres of units, level-0 pixels (U, 2), for the rates.
        seconds: for each rate.
        like: the fastest runtime and batch size of both models, if another slide has found them.

    Attributes:
        densenet: runtime, batch size and units a second of DenseNet-121.
        own: likewise, of our own encoder.
    """

    def __init__(
        self, slide: Path, run: Path, work: Path, places: np.ndarray, seconds: float, like: _Crops | None = None
    ) -> None:
        _, config = evaluator(slide, run, work)
        self.transform, self.mpp = config.get_parsed_content("preprocessing"), config["mpp"]
        self.opened = config.get_parsed_content("reader").open(str(slide))
        network = config.get_parsed_content("network").eval()
        torch.manual_seed(0)
        self.model = _CropModel(DenseNet121(2, 3, 250).eval().features, 1024, 250).eval()
        # the crop is the nearest size that the encoder's windows divide
        own = _CropModel(_padded(network), network.encoder.channels[-1], 250).eval()
        found: list[tuple[str, int, float]] = []
        for what, model in (("DenseNet-121", self.model), ("our encoder", own)):
            print(f"{slide.name}, {what} on crops:")
            if like is None:
                found.append(_rate(model, self.read, places, seconds))
                continue
            name, batch, _ = like.densenet if model is self.model else like.own
            rate = _sampled(_compute(name, model, batch), batch, self.read, places, seconds)
            print(f"  {name}, batch {batch}: {rate:.1f} units/s")
            found.append((name, batch, rate))
        self.densenet: tuple[str, int, float] = found[0]
        self.own: tuple[str, int, float] = found[1]

    def read(self, places: np.ndarray) -> torch.Tensor:
        """Crops around level-0 pixels, (n, 3, 224, 224)."""
        corners = np.rint(places * self.opened.mpp / self.mpp - CROP_PX / 2).astype(int)
        crops = [self.opened.read_region(int(x), int(y), CROP_PX, CROP_PX, self.mpp) for x, y in corners]
        tensors = [self.transform(c.transpose(2, 0, 1).astype("float32")) for c in crops]
        return torch.stack([convert_to_tensor(t, track_meta=False) for t in tensors])  # plain ones: faster to compute

    def seconds(self, places: np.ndarray) -> float:
        """DenseNet-121 on every unit."""
        name, batch, _ = self.densenet
        compute = _compute(name, self.model, batch)
        compute(self.read(places[:1].repeat(batch, 0)))
        started = time.perf_counter()
        for first in range(0, len(places), batch):
            some = places[first : first + batch]
            compute(self.read(np.concatenate([some, some[:1].repeat(batch - len(some), 0)])))
        return time.perf_counter() - started


def _table(
    slide: Path, run: Path, work: Path, seconds: float, longest_s: float, like: _Crops | None
) -> tuple[_Crops, dict[str, float]]:
    """One slide's pipeline at every size against crops."""
    places, _ = _dense(slide, run, work, 100.0)  # warm: the next ones find slide and network
    crops = _Crops(slide, run, work, places, seconds, like)
    rate, own_rate = crops.densenet[2], crops.own[2]
    print(f"{slide.name}: frozen is our encoder's dense features alone")
    row("units", "number", "dense s", "dense/s", "crops s", "ratio", "own encoder", "frozen s", "ratio", widths=_WIDTHS)
    result: dict[str, float] = {}
    cheaper = 0.0
    for size_um in SIZES_UM:
        places, wall = _dense(slide, run, work, size_um)
        n, frozen_s = len(places), _frozen(slide, work, size_um)
        measured = n / rate <= longest_s
        crop_s = crops.seconds(places) if measured else n / rate
        ratio, own, frozen = crop_s / wall, n / own_rate / wall, frozen_s / wall
        size = f"{size_um:g}um"
        result |= {f"ratio_{size}": ratio, f"ratio_own_encoder_{size}": own, f"ratio_frozen_{size}": frozen}
        shown = f"{crop_s:.0f}" + ("" if measured else " (rate)")
        row(f"{size_um:g} µm", n, wall, n / wall, shown, ratio, own, frozen_s, frozen, widths=_WIDTHS)
        cheaper = cheaper or n / crop_s * wall
    print(f"DenseNet crops are cheaper for fewer than {cheaper:.0f} units of 100 µm on this slide")
    return crops, result


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each measured rate")
    parser.add_argument("--longest-s", type=float, default=900.0, help="crops that would take longer are extrapolated")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    with workspace(args.work) as work:
        phantom, run = phantom_slide(work, 2000 if args.quick else 10_000), default_run(work)
        section = None if args.quick else prepared_section(work)
        keep_freed_memory()
        seconds = 1.0 if args.quick else args.seconds
        crops, found = _table(phantom, run, work, seconds, args.longest_s, None)
        result: dict[str, Any] = dict(found)
        if section is not None:
            result["section"] = _table(section[0], run, work, seconds, args.longest_s, crops)[1]
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
