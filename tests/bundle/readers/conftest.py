from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from PIL import Image
from scipy.io import mmwrite

STEP_PX = 30.0
GENES = ["ACTB", "ENSG00000141736.13", "ENSMUSG00000064339.1", "FO538757.1", "TWICE", "TWICE"]
WriteSection = Callable[..., None]


@pytest.fixture
def write_section() -> WriteSection:
    """Writes one section of 8 x 6 spots, 30 px apart, in the legacy form; hooks change a table before it is written."""

    def write(
        counts: Path,
        spots: Path,
        image: Path,
        seed: int = 0,
        change_counts: Callable[[pd.DataFrame], pd.DataFrame] = lambda t: t,
        change_spots: Callable[[pd.DataFrame], pd.DataFrame] = lambda t: t,
    ) -> None:
        rng = np.random.default_rng(seed)
        x, y = (v.ravel() for v in np.meshgrid(np.arange(3, 11), np.arange(4, 10)))
        new = np.column_stack([x, y]) + rng.normal(0, 0.04, (len(x), 2))
        table = pd.DataFrame({"x": x, "y": y, "new_x": new[:, 0], "new_y": new[:, 1]})
        table[["pixel_x", "pixel_y"]] = (new - (2, 3)) * STEP_PX
        table["selected"] = 1
        names = [f"{a}x{b}" for a, b in zip(x, y, strict=True)]
        values = pd.DataFrame(rng.poisson(3, (len(x), len(GENES))), index=names, columns=GENES)
        for path in (counts, spots, image):
            path.parent.mkdir(parents=True, exist_ok=True)
        change_counts(values.sample(frac=1, random_state=seed)).to_csv(counts, sep="\t")
        change_spots(table).to_csv(spots, sep="\t", index=False)
        smooth = np.kron(rng.integers(0, 256, (12, 15, 3), dtype=np.uint8), np.ones((20, 20, 1), np.uint8))
        Image.fromarray(smooth).save(image, quality=95)

    return write


@pytest.fixture
def her2st(tmp_path: Path, write_section: WriteSection) -> Path:
    """A small folder in the layout of Her2ST: sections A1 and A2 of one patient, B1 of another."""
    root = tmp_path / "her2st"
    for seed, name in enumerate(("A1", "A2", "B1")):
        write_section(
            root / "ST-cnts" / f"{name}.tsv.gz",
            root / "ST-spotfiles" / f"{name}_selection.tsv",
            root / "ST-imgs" / f"{name}.jpg",
            seed,
        )
    return root


@dataclass(frozen=True)
class Specimen:
    """Generated tissue: an off-centre, asymmetric blob whose darkness says how much is expressed."""

    mpp: float = 2.0
    width_px: int = 1200
    height_px: int = 900
    seed: int = 0

    def amount(self, at_px: np.ndarray) -> np.ndarray:
        """Expression per place (x, y), from 0 on glass to 1, (N,)."""
        x, y = (at_px * self.mpp / 1000).T  # mm
        body = ((x - 0.95) / 0.75) ** 2 + ((y - 0.75) / 0.55) ** 2 + 0.25 * (x - 0.95) * (y - 0.75) < 1
        level = (
            0.3 + 0.25 * np.sin(5 * x + 1) * np.cos(7 * y) + 0.3 * np.exp(-(((x - 0.6) ** 2 + (y - 0.9) ** 2) / 0.02))
        )
        return np.where(body, np.clip(level, 0.05, 1), 0.0)

    @cached_property
    def picture(self) -> np.ndarray:
        """H&E, uint8 (h, w, 3)."""
        y, x = np.mgrid[: self.height_px, : self.width_px] + 0.5
        amount = self.amount(np.column_stack([x.ravel(), y.ravel()])).reshape(y.shape)[..., None]
        noise = np.random.default_rng(self.seed).normal(0, 3, (*y.shape, 3))
        stain = np.where(amount > 0, np.array([235, 190, 215.0]) - amount * np.array([130, 150, 80]), 246.0)
        return np.clip(stain + noise, 0, 255).astype(np.uint8)

    def counts(self, centers_px: np.ndarray, genes: int = 20, per_unit: float = 400.0) -> sp.csr_matrix:
        """Counts of units, (U, genes)."""
        rng = np.random.default_rng(self.seed + 1)
        share = rng.dirichlet(np.ones(genes))
        return sp.csr_matrix(rng.poisson(self.amount(centers_px)[:, None] * share * per_unit).astype(np.int32))

    def hexagonal(self, pitch_px: float) -> tuple[np.ndarray, np.ndarray]:
        """Row and column on Visium's array, and centres (x, y), of spots all over the picture."""
        rows = int(self.height_px / (pitch_px * np.sqrt(3) / 2))
        columns = int(self.width_px / pitch_px)
        row, column = np.divmod(np.arange(rows * columns), columns)
        column = 2 * column + row % 2
        return np.column_stack([row, column]), np.column_stack(
            [(column + 0.5) * pitch_px / 2, (row + 0.5) * pitch_px * np.sqrt(3) / 2]
        )


@pytest.fixture(scope="session")
def specimen() -> Specimen:
    return Specimen()


@pytest.fixture(scope="session")
def write_10x() -> Callable[..., None]:
    """Writes a feature-barcode matrix as Cell Ranger does: an `.h5`, or a folder of three mtx files."""

    def write(
        path: Path, counts: sp.csr_matrix, barcodes: list[str], names: list[str], kinds: list[str] | None = None
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = [f"ENSG{i:011d}.{i % 9}" for i in range(len(names))]
        kinds = kinds or ["Gene Expression"] * len(names)
        if path.suffix != ".h5":
            path.mkdir()
            with gzip.open(path / "matrix.mtx.gz", "wb") as file:
                mmwrite(file, sp.coo_matrix(counts.T), field="integer")
            features = "".join("\t".join(row) + "\n" for row in zip(ids, names, kinds, strict=True))
            (path / "features.tsv.gz").write_bytes(gzip.compress(features.encode()))
            (path / "barcodes.tsv.gz").write_bytes(gzip.compress("".join(f"{b}\n" for b in barcodes).encode()))
            return
        matrix = sp.csr_matrix(counts)
        with h5py.File(path, "w") as file:
            group = file.create_group("matrix")
            group["barcodes"] = np.array(barcodes, dtype="S")
            group["data"] = matrix.data.astype(np.int32)
            group["indices"] = matrix.indices.astype(np.int64)
            group["indptr"] = matrix.indptr.astype(np.int64)
            group["shape"] = np.array(matrix.shape[::-1], np.int32)
            for key, values in (("id", ids), ("name", names), ("feature_type", kinds)):
                group[f"features/{key}"] = np.array(values, dtype="S")

    return write
