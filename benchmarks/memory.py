"""Peak memory over the size of the slide: 5,000² to 40,000² px of tissue, and slides mostly blank.

`python -m benchmarks.memory` runs whole commands that predict 8 µm bins and 18,000 genes. At each size these are too
many values for `X`, so the result holds features as factors.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from .workload import arguments, default_run, finish, phantom_slide, predict, row, workspace

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run it."""
    parser = arguments(__doc__)
    parser.add_argument("--sides-px", type=int, nargs="+", default=[5_000, 10_000, 20_000, 40_000])
    parser.add_argument("--bin-um", default="8")
    args = parser.parse_args(argv)
    sides = [1000, 2000] if args.quick else args.sides_px
    peaks: dict[tuple[int, float], float] = {}
    with workspace(args.work) as work:
        run = default_run(work, genes=500 if args.quick else 18_000)
        row("slide", "px", "seconds", "peak MB")
        low, high = 10_000 if 10_000 in sides else min(sides), max(sides)
        for side, blank in [*((s, 0.0) for s in sides), *((s, 0.8) for s in dict.fromkeys((low, high)))]:
            slide, out = phantom_slide(work, side, blank), work / "memory.zarr"
            shutil.rmtree(out, ignore_errors=True)
            timed = predict([str(slide), str(out), "--model", str(run), "--bin-um", args.bin_um], args.threads)
            peaks[side, blank] = timed.rss_mb
            row("mostly blank" if blank else "all tissue", side, timed.seconds, timed.rss_mb)
            shutil.rmtree(out, ignore_errors=True)
    result = {
        "growth_mb": peaks[high, 0.0] - peaks[low, 0.0],
        "growth_blank_mb": peaks[high, 0.8] - peaks[low, 0.8],
        "peak_mb": max(peaks.values()),
    }
    finish(result)
    return result


if __name__ == "__main__":
    main()
