from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from bundle.errors import InputError
from bundle.speed.names import names_chunk
from bundle.speed.raw_chunks import holds_blocks, plain_rows, plain_write, read_rows, write_blocks

SIDE, CHANNELS = 4, 3


def _array(path: Path):
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    shape, chunks = (CHANNELS, 3 * SIDE, 5 * SIDE), (CHANNELS, SIDE, SIDE)
    return group.create_array(
        "0", shape=shape, chunks=chunks, dtype="float32", fill_value=np.nan, compressors=None
    ), path / "0"


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("c/*/*/*")}


def test_blocks_are_written_and_read_as_zarr_does(tmp_path):
    (fast, at), (plain, beside) = _array(tmp_path / "fast"), _array(tmp_path / "plain")
    blocks = np.random.default_rng(0).random((2, 3, CHANNELS, SIDE, SIDE), np.float32)
    write_blocks(fast, at, 1, 2, blocks)
    plain_write(plain, 1, 2, blocks)
    assert _files(at) == _files(beside)
    assert len(_files(at)) == 6
    for number in range(3):
        rows = read_rows(fast, at, number)
        np.testing.assert_array_equal(rows, plain_rows(plain, number))
        assert (rows != 0).any() == (number > 0)
    assert holds_blocks(fast, at, range(1, 3), range(2, 5))
    assert not holds_blocks(fast, at, range(1, 3), range(1, 5))


def test_a_chunk_that_is_cut_short_is_not_read(tmp_path):
    array, folder = _array(tmp_path / "a")
    write_blocks(array, folder, 0, 0, np.ones((1, 1, CHANNELS, SIDE, SIDE), np.float32))
    (chunk,) = [p for p in folder.rglob("c/0/0/0") if p.is_file()]
    chunk.write_bytes(chunk.read_bytes()[:-1])
    assert not holds_blocks(array, folder, range(1), range(1))
    with pytest.raises(InputError, match="cut short"):
        read_rows(array, folder, 0)


@pytest.mark.parametrize("n", [0, 5, 8])
def test_names_are_the_bytes_that_zarr_writes(tmp_path, n):
    names = np.array([f"s_008um_{i:05d}".encode() for i in range(n)], dtype="S13")
    group = zarr.open_group(str(tmp_path / "z"), mode="w", zarr_format=3)
    options = {"compressors": None, "config": {"write_empty_chunks": True}}
    array = group.create_array("n", shape=(8,), chunks=(8,), dtype="string", **options)
    array[:] = np.concatenate([names.astype(str), [""] * (8 - n)]).astype(np.dtypes.StringDType())
    assert names_chunk(names, 8) == (tmp_path / "z" / "n" / "c" / "0").read_bytes()
