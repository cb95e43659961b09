"""A prediction that is killed at any moment continues to identical files; a cohort loses nothing.

`python -m benchmarks.crash [--kills 20]` predicts 2 µm bins of a generated slide (Zarr, factors) and its map. It kills
the command with SIGKILL at moments spread evenly over a run, a quarter of them while it writes the AnnData or the map,
and runs it again. Then it predicts a cohort of six slides, of which one is corrupt, and kills one worker.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from .workload import arguments, default_run, finish, phantom_slide, row, workspace

__all__ = ["main"]

_ROOT = Path(__file__).parents[1]


def _contents(folder: Path) -> str:
    """A hash of every file below a folder, names included."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def _start(command: Sequence[str], env: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen(command, cwd=_ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _finish(command: Sequence[str], env: dict[str, str]) -> None:
    process = _start(command, env)
    _, error = process.communicate()
    if process.returncode:
        raise RuntimeError(error.decode(errors="replace")[-2000:])


def _cohort(work: Path, run: Path, slide: Path, env: dict[str, str]) -> tuple[int, int]:
    """Number of slides with the right result, and of slides reported as failed."""
    import anndata as ad
    from distributed import LocalCluster

    folder, out = work / "cohort", work / "cohort_out"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    folder.mkdir()
    names = [f"S{i}" for i in range(6)]
    for name in names:
        shutil.copy(slide, folder / f"{name}.tif")
    (folder / "S3.tif").write_bytes(slide.read_bytes()[:20_000])
    pd.DataFrame({"slide": [f"{name}.tif" for name in names]}).to_csv(folder / "cohort.csv", index=False)
    options = ["--model", str(run), "--bin-um", "16"]
    predict = [sys.executable, "-m", "bundle.cli", "predict"]
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    try:
        command = [*predict, str(folder / "cohort.csv"), str(out), *options, "--scheduler", cluster.scheduler_address]
        process = _start(command, env)
        killed = _kill_a_worker({nanny.pid for nanny in cluster.workers.values()})
        process.communicate()
    finally:
        with suppress(TimeoutError):  # on a busy machine its workers may take longer to end than it waits
            cluster.close()
    print(f"cohort: {'a worker was killed' if killed else 'no worker was found to kill'}, exit {process.returncode}")
    summary = pd.read_csv(out / "summary.csv")
    print(summary.to_string(index=False))
    alone = work / "alone.h5ad"
    _finish([*predict, str(folder / "S0.tif"), str(alone), *options], env)
    truth = ad.read_h5ad(alone)
    right = 0
    for name in names:
        if (out / f"{name}.h5ad").is_file():
            found = ad.read_h5ad(out / f"{name}.h5ad")
            right += list(found.obs_names) == list(truth.obs_names) and bool(np.allclose(found.X, truth.X, atol=1e-4))
    reported = int((summary["status"] == "failed").sum())
    return right if killed else 0, reported


def _kill_a_worker(workers: set[int], timeout: float = 120.0) -> bool:
    """Kill the first worker that has begun a prediction."""
    started = time.monotonic()
    while time.monotonic() - started < timeout:
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                text, owner = (
                    (path.parent / "cmdline").read_bytes(),
                    int(path.read_text().rpartition(")")[2].split()[1]),
                )
            except (OSError, ValueError):
                continue
            if owner in workers and b"predict" in text:
                time.sleep(6)  # let it get to its tiles
                os.kill(owner, signal.SIGKILL)
                return True
        time.sleep(0.1)
    return False


def main(argv: Sequence[str] | None = None) -> dict[str, int]:
    """Run it."""
    parser = arguments(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--side-px", type=int, default=5000)
    args = parser.parse_args(argv)
    kills, side = (2, 1500) if args.quick else (args.kills, args.side_px)
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "PYTHONWARNINGS": "ignore"}
    with workspace(args.work) as work:
        slide, run = phantom_slide(work, side), default_run(work)
        out = work / "crash.zarr"
        command = [sys.executable, "-m", "bundle.cli", "predict", str(slide), str(out), "--model", str(run)]
        dense = work / "crash_map.zarr"
        command += ["--bin-um", "2", "--map", str(dense), "--set", "tile_px=512"]
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(dense, ignore_errors=True)
        started = time.monotonic()
        _finish(command, env)
        took, whole = time.monotonic() - started, (_contents(out), _contents(dense))
        work_dir = Path(str(out) + ".work")
        identical, stages = 0, []
        for number in range(kills):
            shutil.rmtree(out, ignore_errors=True)
            shutil.rmtree(dense, ignore_errors=True)
            process = _start(command, env)
            if number % 4 == 3:  # while writing, the AnnData and the map in turn
                begun = (work_dir, "*/.*.part.zarr") if number % 8 == 3 else (work, f".*.part.{dense.name}")
                while process.poll() is None and not list(begun[0].glob(begun[1])):
                    time.sleep(0.002)
                time.sleep(0.05 * (number // 4))
            else:
                time.sleep(took * (number + 0.5) / kills)
            process.kill()
            process.communicate()
            tiles = next(iter(work_dir.glob("*/done.json")), None)
            stage = "finished" if out.exists() else "before the first tile" if tiles is None else tiles.read_text()
            stage = "writing" if list(work_dir.glob("*/.*.part.zarr")) else " ".join(stage.split())
            stage = "writing the map" if list(work.glob(f".*.part.{dense.name}")) else stage
            _finish(command, env)
            left = [work_dir.exists(), *work.glob(f".*{out.name}*"), *work.glob(f".*{dense.name}*")]
            same = (_contents(out), _contents(dense)) == whole and not any(left)
            identical += same
            stages.append(stage)
            row(f"kill {number + 1}: {stage}", "identical" if same else "DIFFERENT", widths=(50, 12))
        print(f"an uninterrupted run took {took:.1f} s")
        right, reported = _cohort(work, run, slide, env)
    result = {"identical": identical, "runs": kills, "cohort_ok": right, "cohort_reported": reported}
    finish(result)
    return result


if __name__ == "__main__":
    main()
