"""How close the whole pipeline is to the network's own speed, and which runtime computes the network fastest.

`python -m benchmarks.limit`: the default network on the tiles of a generated slide of 20,000 x 20,000 px at 0.5 µm/px,
and on a section of Her2ST. Pure forward: the same tiles, read before. Pipeline: opening the slide, finding tissue,
reading, network, map and AnnData of 100 µm spots, in the same process.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bundle.inference.tiles import margin_px
from bundle.speed.memory import keep_freed_memory

from .workload import arguments, default_run, evaluator, finish, phantom_slide, prepared_section, row, workspace

__all__ = ["main"]

_WAYS = ("torch", "torch, kept memory", "torch.compile")


def _median(call: Callable[[], Any], times: int) -> float:
    call()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def _way(name: str, network: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """One way to compute the network's map."""
    if name == "torch, kept memory":
        keep_freed_memory()
    features = torch.compile(network.features) if name == "torch.compile" else network.features

    def run(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return features(image)

    return run


def _forward(name: str, run: Path, slide: Path, work: Path, size_px: int, threads: int, times: int) -> None:
    """In a process of its own: seconds of one region's map."""
    torch.set_num_threads(threads)
    _, parser = evaluator(slide, run, work)
    network = parser.get_parsed_content("network").eval()
    compute = _way(name, network)
    image = torch.randn(1, 3, size_px, size_px)
    print(f"seconds {_median(lambda: compute(image), times):.6f}")


def _elsewhere(*argv: Any) -> float | None:
    """Run `_forward` in another process, so that one engine's memory does not help or hinder the next."""
    command = [sys.executable, "-m", "benchmarks.limit", "--forward", *(str(a) for a in argv)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("seconds ")]
    if not lines:
        print(f"  {argv[0]}: could not be measured ({ended.stderr.strip().splitlines()[-1:]})")
        return None
    return float(lines[-1].split()[1])


def _pipeline(slide: Path, run: Path, work: Path, times: int) -> tuple[float, float, float, float]:
    """The pipeline over the forward on the same tiles; the pipeline's seconds; mm² of tissue; megapixels computed."""
    ratios, walls, forwards = [], [], []
    engine, parser = evaluator(slide, run, work / "pipeline", spot_um=100.0, pitch_um=100.0)
    inferer, network = parser.get_parsed_content("inferer"), parser.get_parsed_content("network")
    engine.run()  # warm: checkpoint loaded
    network.eval()
    sample = parser.get_parsed_content("dataset")[0]
    tiles = inferer.tiles(sample, network)
    opened = parser.get_parsed_content("reader").open(str(slide))
    compute, transform = _way("torch", network), parser.get_parsed_content("preprocessing")
    images = []
    for tile in tiles:
        x, y, width, height = tile.region
        pixels = opened.read_region(x, y, width, height, inferer.settings.mpp)
        images.append(torch.as_tensor(transform(pixels.transpose(2, 0, 1).astype("float32")))[None])
    for _ in range(times):
        started = time.perf_counter()
        engine.run()
        walls.append(time.perf_counter() - started)
        started = time.perf_counter()
        for image in images:
            compute(image)
        forwards.append(time.perf_counter() - started)
        ratios.append(walls[-1] / forwards[-1])
    tissue = sample["tissue"]
    mm2 = float(tissue.mask.sum()) * tissue.mpp**2 / 1e6
    mpx = sum(t.region[2] * t.region[3] for t in tiles) / 1e6
    print(
        f"{slide.name}: pipeline {statistics.median(walls):.2f} s, "
        f"forward {statistics.median(forwards):.2f} s, "
        f"{len(tiles)} tiles, {mpx / statistics.median(walls):.2f} Mpx/s computed, "
        f"{mm2 / statistics.median(walls):.2f} mm²/s of tissue; "
        f"pipeline over forward, each pair: {', '.join(f'{r:.3f}' for r in ratios)}"
    )
    return statistics.median(ratios), statistics.median(walls), mm2, mpx


def main(argv: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Run it."""
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--regions-px", type=int, nargs="+", default=[1024, 2560, 3584])
    parser.add_argument("--only", choices=("torch",), help="measure the pipeline alone")
    parser.add_argument("--section-only", action="store_true", help="measure the pipeline on a Her2ST section alone")
    parser.add_argument("--forward", nargs=7, help="(used by itself)")
    args = parser.parse_args(argv)
    if args.forward:
        name, run, slide, work, size, threads, times = args.forward
        _forward(name, Path(run), Path(slide), Path(work), int(size), int(threads), int(times))
        return None
    torch.set_num_threads(args.threads)
    regions = [512, 768] if args.quick else args.regions_px
    with workspace(args.work) as work:
        if args.section_only:
            section = prepared_section(work)
            if section is None:
                parser.error("there is no Her2ST section: set PIXNET_DATA")
            keep_freed_memory()
            ratio = _pipeline(section[0], default_run(work), work, args.runs)[0]
            result: dict[str, Any] = {"section": {"pipeline_over_forward": ratio}}
            finish(result)
            return result
        slide, run = phantom_slide(work, 2000 if args.quick else 20_000), default_run(work)
        _, config = evaluator(slide, run, work)
        network = config.get_parsed_content("network").eval()
        margin = 2 * margin_px(network.grid_px, network.halo_px, network.stride)
        if args.only:
            keep_freed_memory()
            ratio, wall, mm2, mpx = _pipeline(slide, run, work, args.runs)
            result = {"pipeline_over_forward": ratio, "mm2_per_s": mm2 / wall, "mpx_per_s": mpx / wall}
            finish(result)
            return result
        main_px = regions[len(regions) // 2]
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            network.features(torch.randn(1, 3, 512, 512))
        flops_per_px = counter.get_total_flops() / 512**2
        print(f"default network at {config['mpp']:g} µm/px: {flops_per_px / 1e3:.1f} kFLOP a pixel")
        row("way", "region px", "threads", "Mpx/s", "needed Mpx/s")
        speeds: dict[tuple[str, int, int], float] = {}
        cases = [(name, main_px, args.threads) for name in _WAYS]
        cases += [("torch, kept memory", size, args.threads) for size in regions if size != main_px]
        cases += [("torch, kept memory", main_px, 1)]
        for name, size, threads in cases:
            seconds = _elsewhere(name, run, slide, work, size, threads, args.runs)
            if seconds is None:
                continue
            speeds[name, size, threads] = size**2 / seconds / 1e6
            useful = max(size - margin, 0) ** 2 / size**2
            row(name, size, threads, speeds[name, size, threads], speeds[name, size, threads] * useful)
        at_main = {name: s for (name, size, t), s in speeds.items() if size == main_px and t == args.threads}
        best = max(at_main, key=lambda name: at_main[name])
        n = 1024 if args.quick else 4096
        a = torch.randn(n, n)
        peak = 2 * n**3 / _median(lambda: a @ a, args.runs)
        gflops = at_main[best] * 1e6 * flops_per_px
        print(f"fastest: {best}; {gflops / 1e9:.0f} GFLOP/s of {peak / 1e9:.0f} in a {n} x {n} matrix product")
        keep_freed_memory()
        ratio, wall, mm2, mpx = _pipeline(slide, run, work, args.runs)
        section = None if args.quick else prepared_section(work)
        of_section = None if section is None else _pipeline(section[0], run, work, args.runs)[0]
    result = {
        "pipeline_over_forward": ratio,
        "best_over_eager": at_main[best] / at_main["torch"],
        "gflops_share": gflops / peak,
        "mm2_per_s": mm2 / wall,
        "mpx_per_s": mpx / wall,
    }
    if of_section is not None:
        result["section"] = {"pipeline_over_forward": of_section}
    finish(result)
    return result


if __name__ == "__main__":
    main()
