from __future__ import annotations

import numpy as np
import pytest
import zarr

from bundle.speed.unit_names import names_chunk


@pytest.mark.parametrize("n", [0, 5, 8])
def test_names_are_the_bytes_that_zarr_writes(tmp_path, n):
    names = np.array([f"s_008um_{i:05d}".encode() for i in range(n)], dtype="S13")
    group = zarr.open_group(str(tmp_path / "z"), mode="w", zarr_format=3)
    options = {"compressors": None, "config": {"write_empty_chunks": True}}
    array = group.create_array("n", shape=(8,), chunks=(8,), dtype="string", **options)
    array[:] = np.concatenate([names.astype(str), [""] * (8 - n)]).astype(np.dtypes.StringDType())
    assert names_chunk(names, 8) == (tmp_path / "z" / "n" / "c" / "0").read_bytes()
