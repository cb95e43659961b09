"""Shared by the speed and memory benchmarks: slides of any size, the default network, and measured commands.

Speed does not depend on weights, so these are random. Everything else (network, working mpp, tiles, configurations,
command line) is as in `pixnet train` and `pixnet predict`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser

from bundle.config.root import bundle_root
from bundle.data.panel import GenePanel
from bundle.datasets.phantom.dataset import make_specimens
from bundle.datasets.phantom.stain import SlideImage
from bundle.files.atomic import write_json
from bundle.files.ownership import claim
from bundle.writers.tiff_pyramid import write_pyramid

__all__ = [
    "Timed",
    "arguments",
    "default_run",
    "finish",
    "her2st_folder",
    "measured",
    "phantom_slide",
    "predict",
    "quiet",
    "row",
    "workspace",
]

SLIDE_MPP = 0.5
PATCH_PX = 5000  # generated once; larger slides repeat it
BLANK_PX = 1000  # half a millimetre: a mostly blank slide holds small pieces, as of biopsies


def arguments(description: str | None, threads: bool = True) -> argparse.ArgumentParser:
    """Options of every benchmark; those that set their threads themselves have no `--threads`."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--work", help="folder to keep generated slides in; a temporary one by default")
    if threads:
        parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="a small slide, to see that it works")
    return parser


@contextmanager
def workspace(work: str | None) -> Iterator[Path]:
    """The folder to work in: an empty one, or an earlier benchmark's."""
    if work is not None:
        yield claim(work, "benchmark")
        return
    with tempfile.TemporaryDirectory(prefix="pixnet-benchmark-") as folder:
        yield Path(folder)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence logs and warnings of MONAI's functions and tracers between a table's rows."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


class _Mosaic:
    """A patch repeated over a slide, every second time mirrored; a share `blank` of its squares is blank glass."""

    def __init__(self, patch: np.ndarray, side_px: int, blank: float) -> None:
        self.patch = patch
        self.shape = (side_px, side_px, 3)
        n = -(-side_px // BLANK_PX)
        rng = np.random.default_rng(0)
        order = rng.permutation(n * n)
        self.is_blank = (order < int(blank * n * n)).reshape(n, n)

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        rows, columns = (np.arange(*part.indices(side)) for part, side in zip(index, self.shape, strict=False))
        side = len(self.patch)
        out = self.patch[np.ix_(_mirrored(rows, side), _mirrored(columns, side))]
        blank = self.is_blank[np.ix_(rows // BLANK_PX, columns // BLANK_PX)]
        return np.where(blank[..., None], np.uint8(243), out) if blank.any() else out


def _mirrored(at: np.ndarray, side: int) -> np.ndarray:
    inside = at % side
    return np.where((at // side) % 2, side - 1 - inside, inside)


def phantom_slide(folder: Path, side_px: int, blank: float = 0.0, seed: int = 0) -> Path:
    """A generated slide at 0.5 µm per pixel; up to 5000 px a phantom, above it that phantom repeated."""
    pieces = f"_{BLANK_PX}" if blank else ""
    path = folder / f"phantom_{side_px}_{blank:g}{pieces}_{seed}.tif"
    if path.is_file():
        return path
    patch_px = min(side_px, PATCH_PX)
    specimen = make_specimens(
        slides=1, seed=seed, size_um=patch_px * SLIDE_MPP, genes=10, blank_fraction=0.2 if side_px <= PATCH_PX else 0.0
    )[0]
    image = SlideImage(specimen.anatomy, SLIDE_MPP)
    if side_px <= PATCH_PX:
        return write_pyramid(path, image, SLIDE_MPP)
    patch_file = folder / f"patch_{seed}.npy"
    if not patch_file.is_file():
        step = 1000
        patch = np.empty((patch_px, patch_px, 3), np.uint8)
        for top in range(0, patch_px, step):
            patch[top : top + step] = image[top : top + step, 0:patch_px]
        np.save(patch_file, patch)
    return write_pyramid(path, _Mosaic(np.load(patch_file), side_px, blank), SLIDE_MPP)


def her2st_folder() -> Path | None:
    """Her2ST's files in PIXNET_DATA, or None if they are absent."""
    root = Path(os.environ.get("PIXNET_DATA", Path(__file__).parents[2] / "shared" / "data"))
    return root / "her2st" if (root / "her2st").is_dir() else None


def prepared_section(folder: Path, section: str = "C5") -> tuple[Path, Path] | None:
    """A Her2ST section and its spots in our form, (slide, units), or None if the data are absent."""
    source = her2st_folder()
    if source is None:
        return None
    if not (folder / "her2st" / "dataset.json").is_file():
        from bundle.importing import prepare

        prepare(str(source), str(folder / "her2st"), source="her2st", test=[section], split_by="section")
    return folder / "her2st" / "slides" / f"{section}.tif", folder / "her2st" / "spots" / f"{section}.h5ad"


def default_run(folder: Path, genes: int = 250, seed: int = 0, **overrides: Any) -> Path:
    """A run folder of the released default network with random weights.

    Args:
        folder: where run folders are made.
        genes: genes of the panel.
        seed: of the weights.
        **overrides: keys of `configs/train.json`.
    """
    changed = "_".join(f"{key}{value}" for key, value in overrides.items()).replace("#", "-")
    run = folder / f"run_{genes}_{changed}"
    if (run / "models" / "model.pt").is_file():
        return run
    root = str(bundle_root())
    if root not in sys.path:
        sys.path.insert(0, root)
    parser = ConfigParser(json.loads((bundle_root() / "configs" / "train.json").read_text()))
    for key, value in {**overrides, "n_genes": genes}.items():
        parser[key] = value
    names = [f"GENE{i:05d}" for i in range(genes)]
    panel = GenePanel(
        names, {"mean250": names[:250]}, [1.0] * genes, [0.5] * genes, 0.5, [100.0], 200.0,
        [{"section": "none", "patient": "none"}],
    )  # fmt: skip
    panel.save(run / "models" / "panel.json", mpp=parser["mpp"], head=parser["head"])
    keys = ("mpp", "tile_px", "head", "n_programs", "network_def", "intensity")
    write_json(run / "configs" / "model.json", {key: parser[key] for key in keys if key in parser.get()})
    torch.manual_seed(seed)
    network = parser.get_parsed_content("network_def")
    network.initialize(mean=panel.mean, std=panel.std, loadings=np.full((genes + 1, parser["n_programs"]), 1e-3))
    if network.ridge is not None:  # its regression is solved for, and zero before
        torch.nn.init.normal_(network.ridge.components, std=0.1)
    torch.save(network.state_dict(), run / "models" / "model.pt")
    return run


@dataclass(frozen=True)
class Timed:
    """Time and memory of one command.

    Attributes:
        seconds: wall time of the whole process.
        rss_mb: its peak memory; of several processes the largest one's.
        log: what it printed.
    """

    seconds: float
    rss_mb: float
    log: str


def measured(command: Sequence[str], **env: str) -> Timed:
    """Run a command and measure it.

    Raises:
        RuntimeError: if it fails.
    """
    ended = subprocess.run(
        [sys.executable, Path(__file__).with_name("measure.py"), *command],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=True,
    )
    log, _, figures = ended.stdout.rstrip().rpartition("\n")
    code, seconds, peak_kb = figures.split()
    if int(code):
        raise RuntimeError(log[-3000:])
    return Timed(float(seconds), int(peak_kb) / 1024, log)


def predict(arguments: Sequence[str], threads: int, **env: str) -> Timed:
    """Run `pixnet predict` as a process of its own and measure it.

    Raises:
        RuntimeError: if it fails.
    """
    command = [sys.executable, "-m", "bundle.cli", "predict", *arguments]
    return measured(command, OMP_NUM_THREADS=str(threads), PYTHONWARNINGS="ignore", **env)


def row(*entries: Any, widths: Sequence[int] = (34, 12, 12, 12, 12, 12)) -> None:
    """Print a row of a table."""
    text = [f"{c:.3f}" if isinstance(c, float) else str(c) for c in entries]
    print("  ".join(t.ljust(w) if i == 0 else t.rjust(w) for i, (t, w) in enumerate(zip(text, widths, strict=False))))


def finish(result: Mapping[str, Any]) -> None:
    """Print the closing JSON line, of five digits each: differences are small."""
    print(json.dumps(_rounded(result)))


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(v) for key, v in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def evaluator(slide: Path, run: Path, work: Path, **keys: Any) -> Any:
    """The prediction's engine as `inference.json` makes it, ready to run in this process.

    Args:
        slide: the slide.
        run: the run folder of the model.
        work: folder for its output.
        **keys: of `configs/inference.json`.
    """
    root = bundle_root()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    parser = ConfigParser(json.loads((root / "configs" / "inference.json").read_text()))
    own = {"bundle_root": str(root), "slides": str(slide), "model_dir": str(run / "models")}
    own |= {"output": str(work / "out.h5ad")}
    for key, value in {**json.loads((run / "configs" / "model.json").read_text()), **own, **keys}.items():
        parser[key] = value
    return parser.get_parsed_content("evaluator"), parser
