from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest
import torch

from bundle.data.fit_panel import fit_panel
from bundle.data.manifest import read_split
from bundle.data.slide_units import load_units
from bundle.inference.prediction_dataset import UnitSet
from bundle.writers import predicted_units
from bundle.writers.prediction import PredictionWriter


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
    network = SimpleNamespace(stride=4, affine=lambda: (torch.eye(len(panel)), torch.zeros(len(panel))))
    writer = PredictionWriter(str(tmp_path / "out"), panel, network, mpp=2.0, model_file=str(tmp_path / "model.pt"))
    move, moved = predicted_units.move, []

    def other_rank_first(source: Path, target: Path) -> None:
        """The first that is about to move finds that the other rank has written all of the same file."""
        moved.append(source)
        if len(moved) == 1:
            monkeypatch.setattr(predicted_units.idist, "get_rank", lambda: 1)
            writer.write(slide, UnitSet(units), answer)
        move(source, target)

    monkeypatch.setattr(predicted_units, "move", other_rank_first)
    path = writer.write(slide, UnitSet(units), answer)
    assert len(moved) == 2
    np.testing.assert_array_equal(ad.read_h5ad(path).X, answer)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("end", ["whole", "closed", "failed"])
def test_batches_are_made_by_half_of_the_threads_and_the_others_keep_theirs(four_threads: int, end: str) -> None:
    made_by: list[int] = []

    def items() -> Iterator[int]:
        for number in (1, 2, 3):
            made_by.append(torch.get_num_threads())
            yield number
        if end == "failed":
            raise OSError("disk")

    ahead = predicted_units._ahead(items())
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
    first, second = (predicted_units._ahead(iter((1, 2))) for _ in range(2))
    assert (next(first), next(second)) == (1, 1)
    first.close()
    assert list(second) == [2]
    assert torch.get_num_threads() == four_threads
