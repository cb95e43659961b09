"""Work folders from which a prediction goes on, and maps that were written before."""

from __future__ import annotations

from pathlib import Path

from ..case import Build, Case, kind
from ..checks import predicted
from ..damage import damage
from .slides import work_of


@kind("work", 50)
def resumed(build: Build) -> Case:
    """A prediction goes on from a damaged work folder: its result may not tell, or a sentence says what to remove."""
    out = build.out("o.h5ad")
    arguments = ["predict", str(build.slide()), str(out), "--model", str(build.base.run), "--bin-um", "55"]
    arguments += ["--set", "all_genes=true", "--set", "tile_px=128"]
    case = Case(
        "",
        arguments,
        "either",
        [out],
        leaves=[*work_of("o.h5ad"), "out/.o.h5ad.lock"],
        writes=[*work_of("o.h5ad"), "out/.o.h5ad.lock"],
    )
    case.first = [("interrupted", arguments)]
    case.check = predicted(out, build.base.result("bins.h5ad"))
    rng = build.rng
    which, how_much = int(rng.integers(3)), float(rng.random())
    case.what = "a work folder as it was"
    work = Path(f"{out}.work")
    if which:
        pattern = build.word("**/zarr.json", "**/*.json", "**/c/**/*", "**/*", "**/done.json")
        case.what = f"a work folder, {pattern}: "
        seed = int(rng.integers(2**31))
        case.between = lambda: _harm(work, pattern, how_much, seed)
    return case


def _harm(work: Path, pattern: str, share: float, seed: int) -> str:
    import numpy as np

    rng = np.random.default_rng(seed)
    files = sorted(path for path in work.glob(pattern) if path.is_file())
    if not files:
        return "nothing to damage"
    path = files[int(share * len(files))]
    if rng.random() < 0.25:
        path.unlink()
        return f"{path.name} is gone"
    return f"{path.name}: {damage(path, rng)}"


@kind("maps", 35)
def opened(build: Build) -> Case:
    """A damaged map, opened by a user's script."""
    path = build.copy(build.base.result("map.zarr"), "map.zarr")
    how = _harm(
        path,
        build.word("**/zarr.json", "**/zarr.json", "**/c/**/*", "**/*"),
        float(build.rng.random()),
        int(build.rng.integers(2**31)),
    )
    return Case(f"a map, {how}", [str(path), build.base.genes[0]], function="open_map")
