from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bundle.data.build_units import build_units
from bundle.data.fit_panel import fit_panel
from bundle.data.manifest import read_split, write_manifest
from bundle.data.normalisation import passes_quality_control
from bundle.data.slide_units import load_units
from bundle.files.atomic import write_json
from bundle.inference.prediction_dataset import UnitSet
from bundle.metrics import EvaluationWriter, ExpressionMetric
from bundle.writers.prediction import PredictionWriter

MPP = 0.5
GENES = [f"G{i}" for i in range(10)] + ["<b>&GENE", "NA"]


def _write_units(path: Path, seed: int, shape: str, size_um: float, picture: bool) -> None:
    rng = np.random.default_rng(seed)
    side, pitch_um = 9, 1.5 * size_um
    x, y = (a.ravel() for a in np.meshgrid(np.arange(side), np.arange(side)))
    gradient = np.exp(rng.normal(0, 1, len(GENES)) * ((x - y) / side)[:, None])
    counts = rng.poisson(gradient * rng.uniform(3, 60, len(GENES)))
    adata = build_units(
        counts,
        GENES,
        [f"u{i}" for i in range(side**2)],
        np.column_stack([x + 1, y + 1]) * pitch_um / MPP,
        shape=shape,
        size_um=size_um,
        mpp=MPP,
        section=path.stem,
        in_tissue=np.arange(side**2) > 1,
        hires=rng.integers(0, 255, (120, 120, 3)).astype(np.uint8) if picture else None,
        hires_scale=120 / ((side + 1) * pitch_um / MPP) if picture else None,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(path)


def _make_run(
    root: Path,
    *,
    shape: str = "circle",
    size_um: float = 100.0,
    head: str = "linear",
    tests: int = 1,
    shared: bool = False,
    picture: bool = True,
) -> Path:
    """A run without training: predictions are the measurements with noise, scored and written by the real parts."""
    data, run = root / "data", root / "run"
    slides = {"training": ["A1"], "validation": ["B1"], "test": [f"C{i + 1}" for i in range(tests)]}
    manifest: dict = {"split_by": "section" if shared else "patient", "licence": "none & <such>"}
    for split, names in slides.items():
        manifest[split] = []
        for name in names:
            _write_units(data / "spots" / f"{name}.h5ad", sum(map(ord, name)), shape, size_um, picture)
            (data / f"{name}.tif").touch()
            patient = "A" if shared else name[0]
            manifest[split].append({"image": f"{name}.tif", "label": f"spots/{name}.h5ad", "patient": patient})
    write_manifest(data, manifest)

    panel = fit_panel(read_split(data, "training"), n_mean=8, n_hvg=12)
    panel.save(run / "models" / "panel.json", mpp=2.0, head=head)
    (run / "models" / "model.pt").write_bytes(b"weights")
    write_json(
        run / "configs" / "train.json",
        {"dataset_dir": str(data), "seed": 3, "head": head, "network_def": {"_target_": "networks.PixNet"}},
    )
    (run / "metrics.csv").write_text(
        "epoch,loss,learning_rate,val_PCC@M\n1,2.0,0.001,\n2,1.5,0.0005,0.4\n3,1.4,0.0001,0.3\n"
    )

    def normalised(rates: torch.Tensor) -> torch.Tensor:
        return torch.log1p(1e4 * rates[:, :-1] / rates.sum(1, keepdim=True))

    def project(pooled: torch.Tensor) -> torch.Tensor:
        return normalised(pooled) if head == "programs" else pooled

    def rate(pooled: torch.Tensor) -> torch.Tensor | None:
        return pooled if head == "programs" else None

    for split in ("validation", "test"):
        records = read_split(data, split)
        metric = ExpressionMetric(panel, records, project, rate, scales_um=(4 * size_um,))
        rows = len(panel) + (head == "programs")
        network = SimpleNamespace(stride=4, affine=lambda rows=rows: (torch.eye(rows), torch.zeros(rows)))
        model = str(run / "models" / "model.pt")
        writer = PredictionWriter(str(run / "predictions" / split), panel, network, mpp=2.0, model_file=model)
        for index, record in enumerate(records):
            (units,) = load_units(record)
            keep = passes_quality_control(units, panel.min_total)
            units = units.take(keep)
            counts = units.counts_of(panel.genes)
            noise = np.random.default_rng(index).lognormal(0, np.linspace(0.1, 3, len(panel)), counts.shape)
            rest = (units.total - counts.sum(1))[:, None]
            pooled = torch.from_numpy(np.column_stack([(counts + 0.5) * noise, rest + 1]) / units.area_um2).float()
            pooled = pooled if head == "programs" else normalised(pooled)
            slide = {**record, "units": units, "index": index, "filtered_units": int((~keep).sum()), "mpp": MPP}
            metric(y_pred=[pooled], y=[slide])
            writer.write(slide, UnitSet(units), pooled)
        state = SimpleNamespace(evaluation=metric.aggregate())
        about = {"dataset": str(data)} if split == "test" else {}
        EvaluationWriter(str(run), split, panel, records, about=about)(SimpleNamespace(state=state))  # type: ignore[arg-type]
    return run


@pytest.fixture
def make_run(tmp_path: Path, plain_run: Path) -> Callable[..., Path]:
    """Write a run and its data set below `tmp_path` and return the run folder."""

    def make(**kwargs: object) -> Path:
        if kwargs:
            return _make_run(tmp_path, **kwargs)  # type: ignore[arg-type]
        shutil.copytree(plain_run.parent, tmp_path, dirs_exist_ok=True)
        for path in tmp_path.glob("run/*/*.json"):
            path.write_text(path.read_text().replace(str(plain_run.parent), str(tmp_path)))
        return tmp_path / "run"

    return make


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that no test changes."""
    return _make_run(tmp_path_factory.mktemp("plain"))
