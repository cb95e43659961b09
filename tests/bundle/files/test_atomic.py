from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.files.atomic import move, replacing_folder


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


_KILLED = """
import os, signal, sys
from bundle.files import atomic as files
with files.replacing_folder(sys.argv[1]) as temporary:
    temporary.mkdir()
    if sys.argv[2] == "moving":
        rename = os.replace
        files.os.replace = lambda a, b: (rename(a, b), os.kill(os.getpid(), signal.SIGKILL))
    else:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["writing", "moving"])
def test_what_a_killed_process_had_begun_is_cleared_by_the_next(tmp_path, when):
    out = tmp_path / "m.zarr"
    _write(out, "old", folder=True)
    assert subprocess.run([sys.executable, "-c", _KILLED, out, when], check=False).returncode < 0
    assert len(list(tmp_path.iterdir())) == 2
    with replacing_folder(out) as temporary:
        _write(temporary, "new", folder=True)
    assert (out / "content").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["m.zarr"]


def test_what_a_living_process_writes_stays(tmp_path):
    with replacing_folder(tmp_path / "m.zarr") as first:
        first.mkdir()
        with replacing_folder(tmp_path / "other.zarr") as second:
            second.mkdir()
        living = first.with_name(first.name.replace(str(os.getpid()), str(os.getppid())))
        living.mkdir()
    with replacing_folder(tmp_path / "m.zarr") as again:
        again.mkdir()
    assert living.is_dir()
