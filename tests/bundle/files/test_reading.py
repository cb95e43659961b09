from __future__ import annotations

import errno
import gzip
import os
import zlib
from contextlib import suppress
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from bundle.audit.predicted import read_predicted
from bundle.data.build_units import build_units
from bundle.data.cells import read_cells
from bundle.data.manifest import read_manifest
from bundle.data.read_geojson import read_polygons
from bundle.data.read_units import read_units
from bundle.errors import InputError, user_message
from bundle.files.atomic import replacing
from bundle.files.reading import check_file, read_json, reading


def write_units(path: Path, n: int = 20) -> Path:
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(0.5, (n, 6)))
    centers = rng.uniform(0, 100, (n, 2))
    names = [f"s{i}" for i in range(n)]
    build_units(counts, list("abcdef"), names, centers, shape="circle", size_um=55.0, mpp=0.5, section="s").write_h5ad(
        path
    )
    return path


def no_file(path: Path, kind: str) -> Path:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "empty":
        path.touch()
    elif kind == "long":
        path = path.with_name("q" * 100_000 + path.name)
    return path


READERS = {
    "u.h5ad": read_units,
    "p.h5ad": read_predicted,
    "c.geojson": lambda path: read_cells(path, 0.5, (100, 100)),
    "d.json": read_manifest,
    "x.json": read_json,
}


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "loop", "empty", "long"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_reported_at_once(tmp_path, name, kind):
    path = no_file(tmp_path / name, kind)
    with pytest.raises(InputError) as raised:
        READERS[name](path)
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("name", READERS)
def test_files_damaged_anywhere_are_read_right_or_reported_in_a_sentence(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".h5ad"):
        write_units(path)
    else:
        path.write_text('{"training": [], "features": [{"type": "Feature", "geometry": null}]}')
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        bad = bytearray(whole)
        for at in rng.integers(0, len(bad), rng.integers(1, 9)):
            bad[at] = rng.integers(256)
        path.write_bytes(bytes(bad[: len(bad) if rng.random() < 0.7 else int(rng.integers(len(bad)))]) or b"x")
        with suppress(InputError):
            READERS[name](path)


def test_every_flipped_bit_of_a_gzip_is_reported(tmp_path):
    whole = gzip.compress(b'{"features": []}' * 9)
    path = tmp_path / "c.geojson.gz"
    seen = set()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        try:
            gzip.decompress(path.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            seen.add(type(error))
            with pytest.raises(InputError, match="is not GeoJSON"):
                read_polygons(path)
    assert zlib.error in seen


@pytest.mark.parametrize("part", ["indptr", "indices"])
@pytest.mark.parametrize("value", [-5, 10**9])
@pytest.mark.parametrize("read", [read_units, read_predicted])
def test_damaged_sparse_matrices_are_refused_before_they_crash(tmp_path, part, value, read):
    path = write_units(tmp_path / "u.h5ad")
    with h5py.File(path, "r+") as file:
        file[f"X/{part}"][3] = value
    with pytest.raises(InputError, match=r"sparse matrix X is damaged|cannot be read as AnnData"):
        read(path)


def spoil(path: Path, **held) -> Path:
    adata = ad.read_h5ad(write_units(path))
    for key, value in held.items():
        if key == "spatial":
            adata.obsm["spatial"] = value
        elif key == "names":
            adata.obs_names = value
        elif key == "X":
            adata.X = value
        else:
            adata.uns[key] = value
    adata.write_h5ad(path)
    return path


@pytest.mark.parametrize(
    "held",
    [
        {"spatial": np.full((20, 2), np.nan)},
        {"spatial": np.zeros((20, 1))},
        {"spatial": np.array([["a", "b"]] * 20)},
        {"names": ["one"] * 20},
        {"unit": "circle"},
        {"unit": {"shape": "circle", "size_um": "large"}},
        {"unit": {"shape": "circle", "size_um": 1e9}},
        {"unit": {"shape": "circle", "size_um": np.nan}},
        {"unit": {"shape": "circle", "size_um": -1.0}},
        {"X": np.array([["a"] * 6] * 20)},
    ],
)
def test_units_that_cannot_be_are_reported_in_a_sentence(tmp_path, held):
    with pytest.raises(InputError):
        read_units(spoil(tmp_path / "u.h5ad", **held))


@pytest.mark.parametrize("mpp", [1e-300, -1.0, float("inf"), 1e9])
def test_scales_that_no_slide_has_are_refused(tmp_path, mpp):
    library = {"metadata": {"mpp": mpp}, "scalefactors": {}}
    with pytest.raises(InputError, match="no scale of a slide"):
        read_units(_with_library(tmp_path / "u.h5ad", library))


def _with_library(path: Path, library: dict) -> Path:
    adata = ad.read_h5ad(write_units(path))
    adata.uns["spatial"] = {"s": library}
    adata.write_h5ad(path)
    return path


# What the operating system says


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ELOOP, errno.ENAMETOOLONG, errno.ESTALE])
def test_what_the_system_refuses_about_a_file_is_a_sentence(number):
    error = OSError(number, os.strerror(number), "a/file.tif")
    said = user_message(error)
    assert said is not None
    assert "a/file.tif" in said
    assert os.strerror(number) in said
    wrapped = RuntimeError("while evaluating")
    wrapped.__cause__ = error
    assert user_message(wrapped) == said


def test_faults_of_the_program_stay_tracebacks():
    assert user_message(KeyError("x")) is None
    assert user_message(OSError("without a file")) is None
    with pytest.raises(KeyError) as raised:
        _bug_while_handling()
    assert user_message(raised.value) is None  # what was handled before is not the cause


def _bug_while_handling() -> None:
    try:
        os.stat("/no/such/file")
    except OSError:
        {}["bug"]


def test_a_link_that_leads_to_itself_is_a_sentence(tmp_path):
    said = user_message(RuntimeError(f"Symlink loop from '{tmp_path / 'loop'}'"))  # pathlib's of Python 3.11
    assert said is not None
    assert "leads back to itself" in said


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Unable to write (errno = 28, error message = 'No space left on device')"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 12521280 vs 12521168"),
        RuntimeError("basic_ios::clear: iostream error"),
    ],
)
def test_a_full_disk_is_reported_with_the_files_name_whoever_found_it(tmp_path, error):
    with pytest.raises(InputError, match=r"last\.pt cannot be written .*Make room"), replacing(tmp_path / "last.pt"):
        raise error
    assert not list(tmp_path.iterdir())


def test_other_faults_while_writing_stay_themselves(tmp_path):
    for error in (RuntimeError("a bug"), OSError("something else")):
        with pytest.raises(type(error), match=str(error)), replacing(tmp_path / "x"):
            raise error


def test_a_truly_full_device_is_reported(tmp_path):
    """/dev/full refuses every byte, as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(InputError, match="cannot be written"):
        _save_on_full_device(tmp_path / "m.pt")


def _save_on_full_device(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.symlink_to("/dev/full")
        torch.save({"weights": torch.zeros(10_000)}, temporary)


def test_sentences_of_our_own_pass_through(tmp_path):
    with pytest.raises(InputError, match=r"^mine$"), reading(tmp_path / "x", "anything"):
        raise InputError("mine")
    check_file(__file__)
