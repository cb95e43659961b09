"""Who is in which split: whole patients, whole sections, or bands of one slide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .manifest import SPLIT_BY, SPLITS

__all__ = ["assign", "bands", "check_split_by"]

#: Shares of a slide's units that bands take, in the order of `SPLITS`.
BAND_SHARES = (0.6, 0.2, 0.2)


def assign(
    records: Sequence[dict[str, Any]], split_by: str, validation: Sequence[str] = (), test: Sequence[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Put each record into one split; what is not named is for training.

    By patient an id is a patient, or one of its sections (`bundle.data.manifest.check_splits` refuses half a patient).
    By section it is a section.

    Args:
        records: each with its `section` and `patient`.
        split_by: `patient` or `section`.
        validation: ids for validation.
        test: ids for the test.

    Raises:
        InputError: if an id names nothing that exists, or is named for two splits.
    """
    sections = [str(r["section"]) for r in records]
    patients = list(dict.fromkeys(str(r["patient"]) for r in records))
    placed: dict[str, str] = {}
    for split, ids in (("validation", validation), ("test", test)):
        for name in map(str, ids):
            if split_by == "patient" and name in patients:
                members = [str(r["section"]) for r in records if str(r["patient"]) == name]
            elif name in sections:
                members = [name]
            else:
                hint = " To name sections, ask for --split-by section." if split_by == "patient" else ""
                have = f"patients {', '.join(patients)}" if split_by == "patient" else f"sections {', '.join(sections)}"
                raise InputError(f'--{split}: there is no {split_by} "{name}"; there are the {have}.{hint}')
            for member in members:
                if placed.setdefault(member, split) != split:
                    raise InputError(f"Section {member} is named for both validation and test; name it once.")
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for record in records:
        splits[placed.get(str(record["section"]), "training")].append(record)
    return splits


def bands(centers_px: np.ndarray, size_px: tuple[int, int], gap_px: float) -> dict[str, list[int]]:
    """Cut a slide across the longer axis of its units into bands of 60, 20 and 20 % of them.

    Between two bands a strip of `gap_px` belongs to neither, so no unit of one touches a unit of the other.

    Args:
        centers_px: centres (x, y) of the units, (U, 2).
        size_px: width and height of the slide.
        gap_px: width of the strips: one pitch.

    Returns:
        `[x0, y0, x1, y1]` in level-0 pixels for each split; a unit belongs to it if x0 <= x < x1 and y0 <= y < y1.

    Raises:
        InputError: if a band would hold no unit.
    """
    axis = int(np.ptp(centers_px[:, 1]) > np.ptp(centers_px[:, 0]))
    along = centers_px[:, axis]
    cuts = np.quantile(along, np.cumsum(BAND_SHARES)[:-1])
    starts = [0, *(int(np.ceil(c + gap_px / 2)) for c in cuts)]
    ends = [*(int(np.floor(c - gap_px / 2)) for c in cuts), size_px[axis] + 1]
    blocks = {}
    for split, start, end in zip(SPLITS, starts, ends, strict=True):
        if not ((along >= start) & (along < end)).any():
            raise InputError(f"A slide of {len(along)} units is too small to cut into bands: {split} gets none.")
        block = [0, 0, size_px[0] + 1, size_px[1] + 1]
        block[axis], block[axis + 2] = start, end
        blocks[split] = block
    return blocks


def check_split_by(split_by: str, named: bool) -> None:
    """Refuse an unknown way of splitting, and ids where slides are cut into bands.

    Raises:
        InputError: as said.
    """
    if split_by not in SPLIT_BY:
        raise InputError(f'--split-by is "{split_by}"; choose one of {", ".join(SPLIT_BY)}.')
    if split_by == "block" and named:
        raise InputError("--split-by block cuts every slide by itself; leave --validation and --test out.")
