from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bundle.errors import InputError
from bundle.files.atomic import alone_at, move, replacing_folder


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


_HOLDS = """
import sys, time
sys.path.insert(0, ".")
from bundle.files.atomic import alone_at
with alone_at(sys.argv[1]):
    print("inside", flush=True)
    time.sleep(600)
"""


def test_an_output_in_use_is_refused_and_free_again_when_its_command_was_killed(tmp_path):
    out = tmp_path / "out.zarr"
    holder = subprocess.Popen([sys.executable, "-c", _HOLDS, out], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"inside\n"
        with pytest.raises(InputError, match="another command is writing"), alone_at(out):
            raise AssertionError("two are inside")
        with alone_at(tmp_path / "other.zarr"):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert len(list(tmp_path.iterdir())) == 1
    with alone_at(out):
        pass
    assert not list(tmp_path.iterdir())


def test_an_output_is_free_after_a_command_that_failed(tmp_path):
    for _ in range(2):
        with pytest.raises(OSError, match="disk"), alone_at(tmp_path / "out.h5ad"):
            raise OSError("disk")
        assert not list(tmp_path.iterdir())


def test_commands_that_wait_for_an_output_have_it_one_by_one(tmp_path):
    inside, most = [0], [0]

    def work(_: int) -> None:
        with alone_at(tmp_path / "out.h5ad", wait=True):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(20)))
    assert most == [1]
    assert not list(tmp_path.iterdir())
