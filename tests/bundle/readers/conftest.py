from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

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
