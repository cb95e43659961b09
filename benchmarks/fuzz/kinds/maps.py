"""Work folders from which a prediction continues, and maps that were written before."""

from __future__ import annotations

from pathlib import Path

from ..case import Build, Case, kind
from ..checks import predicted
from ..damage import damage
from .slides import work_of


@kind("work", 50)
def resumed(build: Build) -> Case:
    """A prediction continues from a damaged work folder: the result is right, or a sentence says what to remove."""
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

        def between() -> str:
            how, same_size = _harm(work, pattern, how_much, seed)
            if same_size:  # the bytes of a chunk carry no sum that would tell
                case.check = predicted(out)
            return how

        case.between = between
    return case


def _harm(work: Path, pattern: str, share: float, seed: int) -> tuple[str, bool]:
    """What was done, and whether a chunk was changed that is as long as it was."""
    import numpy as np

    rng = np.random.default_rng(seed)
    files = sorted(path for path in work.glob(pattern) if path.is_file())
    if not files:
        return "nothing to damage", False
    path = files[int(share * len(files))]
    if rng.random() < 0.25:
        path.unlink()
        return f"{path.name} is gone", False
    size = path.stat().st_size
    how = damage(path, rng)
    return f"{path.name}: {how}", path.suffix != ".json" and path.stat().st_size == size


@kind("maps", 35)
def opened(build: Build) -> Case:
    """A damaged map, opened by a user's script."""
    path = build.copy(build.base.result("map.zarr"), "map.zarr")
    how, _ = _harm(
        path,
        build.word("**/zarr.json", "**/zarr.json", "**/c/**/*", "**/*"),
        float(build.rng.random()),
        int(build.rng.integers(2**31)),
    )
    return Case(f"a map, {how}", [str(path), build.base.genes[0]], function="open_map")
