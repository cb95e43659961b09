from __future__ import annotations

import numpy as np
import pytest

from bundle.data.manifest import SPLITS
from bundle.data.splits import assign, bands
from bundle.errors import InputError

RECORDS = [{"section": s, "patient": s[0]} for s in ("A1", "A2", "B1", "C1", "C2")]


def sections(splits: dict) -> dict[str, list[str]]:
    return {split: [r["section"] for r in splits[split]] for split in SPLITS}


def test_a_patient_takes_all_its_sections() -> None:
    got = sections(assign(RECORDS, "patient", ["B"], ["C"]))
    assert got == {"training": ["A1", "A2"], "validation": ["B1"], "test": ["C1", "C2"]}
    assert got == sections(assign(RECORDS, "patient", ["B1"], ["C1", "C2"]))


def test_every_section_is_in_one_split() -> None:
    got = sections(assign(RECORDS, "section", ["A2"], ["C1"]))
    assert sorted(s for names in got.values() for s in names) == [r["section"] for r in RECORDS]
    assert (got["validation"], got["test"]) == (["A2"], ["C1"])


@pytest.mark.parametrize(
    ("split_by", "validation", "test", "says"),
    [
        ("patient", [], ["D"], "A, B, C"),
        ("section", [], ["C"], "A1, A2, B1, C1, C2"),
        ("section", ["C1"], ["C1"], "both"),
        ("patient", ["C1"], ["C"], "both"),
    ],
)
def test_ids_that_cannot_be_are_reported(split_by: str, validation: list[str], test: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        assign(RECORDS, split_by, validation, test)


@pytest.mark.parametrize("seed", range(4))
def test_bands_are_apart_by_a_pitch_and_share_sixty_twenty_twenty(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size_px, gap_px = (4000, 3000), 50.0
    low, high = (200, 700), (3900, 2500)  # wider than tall
    centers = rng.uniform(low, high, (600, 2))
    if seed % 2:
        centers, size_px = centers[:, ::-1], size_px[::-1]
    blocks = bands(centers, size_px, gap_px)
    inside = {s: ((centers >= b[:2]) & (centers < b[2:])).all(1) for s, b in blocks.items()}
    assert (np.sum(list(inside.values()), axis=0) <= 1).all()
    share = np.array([inside[s].mean() for s in SPLITS])
    np.testing.assert_allclose(share, (0.6, 0.2, 0.2), atol=0.03)
    for a, b in (("training", "validation"), ("validation", "test"), ("training", "test")):
        apart = np.linalg.norm(centers[inside[a]][:, None] - centers[inside[b]][None], axis=-1)
        assert apart.min() >= gap_px
    in_a_gap = ~np.any(list(inside.values()), axis=0)
    assert 0 < in_a_gap.mean() < 0.06


def test_bands_keep_units_on_the_slides_far_edge() -> None:
    centers = np.column_stack([np.linspace(0, 1000, 101), np.full(101, 500.0)])
    blocks = bands(centers, (1000, 500), 10)
    assert ((centers[-1] >= blocks["test"][:2]) & (centers[-1] < blocks["test"][2:])).all()


def test_a_slide_too_small_for_bands_is_reported() -> None:
    with pytest.raises(InputError, match="too small"):
        bands(np.array([[0.0, 0.0], [50.0, 0.0], [100.0, 0.0]]), (100, 100), 100)
