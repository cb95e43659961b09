from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bundle.errors import InputError
from bundle.files.lock import output_lock

_HOLDS = """
import sys, time
sys.path.insert(0, ".")
from bundle.files.lock import output_lock
with output_lock(sys.argv[1]):
    print("inside", flush=True)
    time.sleep(600)
"""


def test_an_output_in_use_is_refused_and_free_again_when_its_command_was_killed(tmp_path):
    out = tmp_path / "out.zarr"
    holder = subprocess.Popen([sys.executable, "-c", _HOLDS, out], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"inside\n"
        with pytest.raises(InputError, match="another command is writing"), output_lock(out):
            raise AssertionError("two are inside")
        with output_lock(tmp_path / "other.zarr"):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert len(list(tmp_path.iterdir())) == 1
    with output_lock(out):
        pass
    assert not list(tmp_path.iterdir())


def test_an_output_is_free_after_a_command_that_failed(tmp_path):
    for _ in range(2):
        with pytest.raises(OSError, match="disk"), output_lock(tmp_path / "out.h5ad"):
            raise OSError("disk")
        assert not list(tmp_path.iterdir())


def test_commands_that_wait_for_an_output_have_it_one_by_one(tmp_path):
    inside, most = [0], [0]

    def work(_: int) -> None:
        with output_lock(tmp_path / "out.h5ad", wait=True):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(20)))
    assert most == [1]
    assert not list(tmp_path.iterdir())


def test_a_thread_that_holds_an_output_may_take_it_again_and_no_other(tmp_path):
    out, lock = tmp_path / "run", tmp_path / ".run.lock"

    def refused(**more: bool) -> bool:
        try:
            with output_lock(out, **more):
                return False
        except InputError:
            return True

    with ThreadPoolExecutor(1) as another, output_lock(out, may_hold_it=True):
        for _ in range(2):
            assert not refused(may_hold_it=True)
            assert lock.exists()
        assert refused()
        assert another.submit(refused, may_hold_it=True).result()
    assert not refused()
    assert not lock.exists()
