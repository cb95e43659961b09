from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bundle.files import move


@pytest.fixture
def two_file_systems(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Two folders between which nothing can be renamed."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    own = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        own(source, target)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "rename", replace)  # what shutil.move tries first
    return here, there


def _write(path: Path, text: str, folder: bool) -> None:
    if folder:
        path.mkdir()
        path /= "content"
    path.write_text(text)


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("there_already", [False, True])
def test_what_is_moved_from_another_file_system_is_whole_and_alone(two_file_systems, folder, there_already):
    here, there = two_file_systems
    _write(here / "new.zarr", "new", folder)
    if there_already:
        _write(there / "o.zarr", "old", folder)
    move(here / "new.zarr", there / "o.zarr")
    assert (there / "o.zarr" / "content" if folder else there / "o.zarr").read_text() == "new"
    assert [p.name for p in there.iterdir()] == ["o.zarr"]
    assert not list(here.iterdir())


def test_another_fault_is_raised_and_the_old_stays(tmp_path):
    _write(tmp_path / "o.zarr", "old", folder=True)
    with pytest.raises(FileNotFoundError):
        move(tmp_path / "none", tmp_path / "o.zarr")
    assert (tmp_path / "o.zarr" / "content").read_text() == "old"
