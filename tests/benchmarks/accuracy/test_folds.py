from __future__ import annotations

from typing import Any

import pytest

from benchmarks.accuracy.folds import STAGES, make_folds
from bundle.errors import InputError


def manifest(*sections: str) -> dict[str, Any]:
    """Sections named after their patient and a number."""
    records = [{"image": f"{s}.tif", "section": s, "patient": s[0], "mpp": 1.0} for s in sections]
    return {"training": records[1:], "validation": records[:1], "test": []}


def names(records: list[dict[str, Any]]) -> list[str]:
    return [r["section"] for r in records]


@pytest.mark.parametrize(
    "sections", [["C10", "C2", "C3", "C4"], ["A1", "A2", "B1", "B2", "C1"], ["A1", "B1", "B2"], ["A1", "B1", "C1"]]
)
def test_each_section_is_tested_once_and_has_one_part_in_a_fold(sections: list[str]) -> None:
    several = len({s[0] for s in sections}) > 1
    if several and sections == ["A1", "B1", "B2"]:
        with pytest.raises(InputError, match="Patient B"):  # only one section would be left
            make_folds(manifest(*sections))
        return
    folds = make_folds(manifest(*sections))
    assert sorted(s for fold in folds for s in names(fold.test)) == sorted(sections)
    for fold in folds:
        parts = names(fold.training) + names(fold.validation) + names(fold.test)
        assert sorted(parts) == sorted(sections)
        assert fold.split_by == ("patient" if several else "section")
        if several:
            assert not {r["patient"] for r in fold.test} & {r["patient"] for r in fold.training + fold.validation}
        for stage in STAGES:
            training, scored = fold.split(stage)
            assert training
            assert scored
            assert not set(names(training)) & set(names(scored))
        assert not set(names(fold.test)) & {s for part in fold.split("screening") for s in names(part)}


def test_the_next_in_natural_order_decides() -> None:
    folds = make_folds(manifest("C10", "C2", "C3", "C4"))
    assert [(fold.name, *names(fold.validation)) for fold in folds] == [
        ("C2", "C3"),
        ("C3", "C4"),
        ("C4", "C10"),
        ("C10", "C2"),
    ]


def test_two_patients_decide_within_the_other() -> None:
    (first, second) = make_folds(manifest("A1", "A2", "B1", "B2"))
    assert (names(first.training), names(first.validation)) == (["B2"], ["B1"])
    assert (names(second.training), names(second.validation)) == (["A2"], ["A1"])


def test_two_sections_are_too_few() -> None:
    with pytest.raises(InputError, match="there are 2"):
        make_folds(manifest("C1", "C2"))
