"""AnnData on disk (`.h5ad` or `.zarr`) written piece by piece, so that no table of all units is ever held.

Format: https://anndata.readthedocs.io/en/stable/fileformat-prose.html, as anndata 0.12 reads it.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from anndata.io import write_elem
from zarr.codecs import BloscCodec

from ..files.atomic import read_state, remove, remove_begun, replacing, write_json
from ..speed.unit_names import names_chunk

__all__ = ["StreamedAnnData"]

#: A chunk of rows holds at most so many units and, all columns together, about so many bytes.
CHUNK_UNITS, CHUNK_BYTES = 2**18, 2**26


class StreamedAnnData:
    """An AnnData whose number of units is known and whose rows come in order.

    A `.zarr` that was left unfinished goes on after its last whole chunk, if `header` is the same; an `.h5ad`, which a
    kill can leave unreadable, is begun anew.

    Args:
        path: the file or folder in the making; its ending says which form.
        n_units: rows in the end.
        header: `var`, `varm`, `uns`: what does not grow with the units; written at once.
        identity: what distinguishes it from what another command left there.
    """

    def __init__(self, path: Path, n_units: int, header: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        self.path = path
        self.n_units = n_units
        self.zarr = path.suffix == ".zarr"
        self._state = path.with_name(path.name + ".json")
        self._identity = json.loads(json.dumps({**identity, "units": n_units}))
        self._waiting: list[dict[str, np.ndarray]] = []
        self._n_waiting = 0
        self._chunk = 0  # known with the first rows
        self._arrays: dict[str, Any] = {}
        self._pool = ThreadPoolExecutor(max_workers=2)
        self._pending: list[Future] = []
        self.written = self._found()
        if self.written:
            remove_begun(path)
            self.group: Any = zarr.open_group(str(path), mode="r+")
            return
        remove(path)
        self.group = zarr.open_group(str(path), mode="w", zarr_format=3) if self.zarr else h5py.File(path, "w")
        _mark(self.group, "anndata", "0.1.0")
        for name in ("obsm", "layers", "obsp", "varp"):
            _mark(self.group.create_group(name), "dict", "0.1.0")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "zarr v3 autosharding", UserWarning)  # nothing here is large
            # gzip, as every reader of HDF5 knows; its lowest level, since higher ones cost more than they save
            small = {} if self.zarr else {"compression": "gzip", "compression_opts": 1}
            for name, content in header.items():
                write_elem(self.group, name, content, dataset_kwargs=small)
        obs = self.group.create_group("obs")
        _mark(obs, "dataframe", "0.2.0")
        obs.attrs["_index"] = "_index"

    def _found(self) -> int:
        """Rows that an earlier command wrote of the same file."""
        if not self.zarr or not self._state.is_file() or not self.path.is_dir():
            return 0
        state = read_state(self._state)
        if state.get("identity") != self._identity or not state.get("chunk"):
            return 0
        self._chunk = int(state["chunk"])  # another version may make them of another size
        return int(state["written"])

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add rows.

        Args:
            rows: by place in the AnnData (`X`, `obs/_index`, `obs/array_row`, `obsm/spatial`, ...), each (n, ...).
        """
        self._chunk = self._chunk or _chunk_units(rows, self.n_units)
        self._waiting.append(dict(rows))
        self._n_waiting += len(next(iter(rows.values())))
        if self._n_waiting >= self._chunk:
            self._flush(self._n_waiting // self._chunk * self._chunk)

    def close(self) -> None:
        """Write what is left.

        Raises:
            RuntimeError: if rows are missing.
        """
        self._flush(self._n_waiting)
        self._settle()
        self._pool.shutdown()
        if self.written != self.n_units:
            raise RuntimeError(f"{self.written} of {self.n_units} units were written to {self.path}.")
        columns = [name.removeprefix("obs/") for name in self._names() if name.startswith("obs/")]
        self.group["obs"].attrs["column-order"] = [c for c in columns if c != "_index"]
        if not self.zarr:
            self.group.close()
        self._state.unlink(missing_ok=True)

    def _names(self) -> list[str]:
        if not self.zarr or self._arrays:
            return list(self._arrays)
        return [f"obs/{name}" for name, _ in sorted(self.group["obs"].arrays())]

    def _flush(self, n: int) -> None:
        if n == 0 and self._arrays:
            return
        self._settle()
        names = list(self._waiting[0]) if self._waiting else []
        waiting = {name: [part[name] for part in self._waiting] for name in names}
        rows = {name: list(_between(parts, 0, n)) or [parts[0][:0]] for name, parts in waiting.items()}
        left = {name: list(_between(parts, n, self._n_waiting)) for name, parts in waiting.items()}
        count = max((len(parts) for parts in left.values()), default=0)
        self._waiting = [{name: parts[i] for name, parts in left.items()} for i in range(count)]
        self._n_waiting -= n
        first = self.written
        self.written += n

        for name, parts in rows.items():
            self._array(name, parts[0])  # made one after the other
        if self.zarr:
            largest = sorted(rows.items(), key=lambda item: -item[1][0].nbytes)  # first, so that none is left for last
            self._pending = [self._pool.submit(self._write, name, parts, first, n) for name, parts in largest]
        else:
            for name, parts in rows.items():
                self._write(name, parts, first, n)

    def _write(self, name: str, parts: list[np.ndarray], first: int, n: int) -> None:
        """Write rows `first` to `first + n` of one array."""
        if self.zarr and parts[0].dtype.kind == "S":
            for at in range(0, n, self._chunk):
                names = np.concatenate(list(_between(parts, at, at + self._chunk)))
                with replacing(self.path / name / "c" / str((first + at) // self._chunk)) as temporary:
                    temporary.write_bytes(names_chunk(names, self._chunk))
            return
        self._array(name, parts[0])[first : first + n] = _strings(np.concatenate(parts), self.zarr)

    def _settle(self) -> None:
        """Wait until the rows in flight are on disk, and only then count them."""
        for future in self._pending:
            future.result()
        self._pending = []
        if self.zarr and self.written < self.n_units:
            write_json(self._state, {"identity": self._identity, "written": self.written, "chunk": self._chunk})

    def _array(self, name: str, values: np.ndarray) -> Any:
        if name not in self._arrays:
            if self.zarr and name in self.group:
                self._arrays[name] = self.group[name]
                return self._arrays[name]
            shape = (self.n_units, *values.shape[1:])
            chunks = (self._chunk, *(max(v, 1) for v in values.shape[1:]))
            text = values.dtype.kind in "SUTO"
            if self.zarr:
                # text and half precision hardly shrink; all else shrinks at little cost
                plain = text or values.dtype == np.float16
                packed = None if plain else BloscCodec(cname="lz4", clevel=1, shuffle="shuffle")
                array = self.group.create_array(
                    name,
                    shape=shape,
                    chunks=chunks,
                    dtype="string" if text else values.dtype,
                    compressors=packed,
                    config={"write_empty_chunks": True},  # else each chunk is compared with an empty one
                )
            else:
                dtype = h5py.string_dtype() if text else values.dtype
                array = self.group.create_dataset(name, shape=shape, dtype=dtype)
            _mark(array, "string-array" if text else "array", "0.2.0")
            self._arrays[name] = array
        return self._arrays[name]


def _between(parts: list[np.ndarray], start: int, stop: int) -> Iterator[np.ndarray]:
    """Rows `start` to `stop` of what the parts hold one after the other, not copied."""
    at = 0
    for part in parts:
        low, high = max(start - at, 0), min(stop - at, len(part))
        if low < high:
            yield part[low:high]
        at += len(part)


def _chunk_units(rows: Mapping[str, np.ndarray], n_units: int) -> int:
    """Rows of a chunk, all chunks of about one size: the same for the same command."""
    n_rows = max(len(next(iter(rows.values()))), 1)
    row_bytes = max(sum(values.nbytes for values in rows.values()) // n_rows, 1)
    most = max(min(CHUNK_UNITS, CHUNK_BYTES // row_bytes), 1)
    return max(math.ceil(n_units / max(math.ceil(n_units / most), 1)), 1)


def _strings(values: np.ndarray, zarr_form: bool) -> np.ndarray:
    if values.dtype.kind not in "SUO":
        return values
    return values.astype(np.dtypes.StringDType()) if zarr_form else values.astype(str).astype(object)


def _mark(item: Any, kind: str, version: str) -> None:
    item.attrs["encoding-type"] = kind
    item.attrs["encoding-version"] = version
