from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch

from bundle.data.manifest import read_split
from bundle.data.panel import fit_panel, load_units
from bundle.inference import PredictionWriter
from bundle.inference import prediction_writer as prediction
from bundle.inference.prediction_dataset import Request


def test_two_ranks_that_write_one_slide_at_once_both_succeed(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = fit_panel(read_split(phantom, "training"), min_total=1)
    panel.save(tmp_path / "panel.json", mpp=2.0, head="linear")
    (tmp_path / "model.pt").write_bytes(b"weights")
    record = read_split(phantom, "test")[0]
    units = load_units(record)[0]
    slide = {**record, "section": "P", "units": units, "mpp": 0.5}
    answer = torch.rand(len(units), len(panel), generator=torch.Generator().manual_seed(0))
    writer = PredictionWriter(
        str(tmp_path / "out"), panel, lambda x: x, lambda _: None, 4, 2.0, str(tmp_path / "model.pt")
    )
    move, moved = prediction.move, []

    def other_rank_first(source: Path, target: Path) -> None:
        """The first that is about to move finds that the other rank has written all of the same file."""
        moved.append(source)
        if len(moved) == 1:
            monkeypatch.setattr(prediction.idist, "get_rank", lambda: 1)
            writer.write(slide, Request(units), answer)
        move(source, target)

    monkeypatch.setattr(prediction, "move", other_rank_first)
    path = writer.write(slide, Request(units), answer)
    assert len(moved) == 2
    np.testing.assert_array_equal(ad.read_h5ad(path).X, answer)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("end", ["whole", "closed", "failed"])
def test_answers_are_made_by_half_of_the_threads_and_the_others_keep_theirs(four_threads: int, end: str) -> None:
    made_by: list[int] = []

    def items() -> Iterator[int]:
        for number in (1, 2, 3):
            made_by.append(torch.get_num_threads())
            yield number
        if end == "failed":
            raise OSError("disk")

    ahead = prediction._ahead(items())
    assert next(ahead) == 1
    assert torch.get_num_threads() == four_threads
    if end == "closed":
        ahead.close()
    elif end == "failed":
        with pytest.raises(OSError, match="disk"):
            list(ahead)
    else:
        assert list(ahead) == [2, 3]
    assert set(made_by) == {2}
    assert torch.get_num_threads() == four_threads


def test_predictions_that_overlap_leave_all_threads(four_threads: int) -> None:
    first, second = (prediction._ahead(iter((1, 2))) for _ in range(2))
    assert (next(first), next(second)) == (1, 1)
    first.close()
    assert list(second) == [2]
    assert torch.get_num_threads() == four_threads
