"""What PixNet wrote, and may therefore replace or delete. Anything else is refused in a sentence.

A folder of ours carries a marker. A file or a Zarr of ours is known by what only PixNet writes into it.
"""

from __future__ import annotations

import json
import mmap
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import make_folder, remove

__all__ = ["MARKER", "check_output", "claim", "claim_run", "claimed_run", "clear", "remove_ours"]

#: The file that marks a folder as PixNet's.
MARKER = ".pixnet.json"
_TEXT = '{"about": "PixNet made this folder and may replace or delete what is in it."}\n'


def check_output(path: str | Path, inputs: Iterable[str | Path | None] = ()) -> None:
    """Refuse to write where something else would be lost.

    Args:
        path: the file or Zarr to write.
        inputs: files and folders that the command reads.

    Raises:
        InputError: if it is one of the inputs under any name, holds one or lies in one, or is there and was not
            written by PixNet.
    """
    path = Path(path)
    for item in inputs:
        if item is not None and _within(path, Path(item)):
            raise InputError(f"{path} would replace {item}, which this command reads. Give the output another name.")
    if not os.path.lexists(path) or _is_ours(path):
        return
    raise InputError(
        f"{path} is there already and was not written by PixNet. Give the output another name, or move that away first."
    )


def claim(
    folder: str | Path, names: Iterable[str] | None = None, earlier: Mapping[str, str] | None = None, mark: bool = True
) -> Path:
    """Make a folder, and mark it as PixNet's unless something else would be lost.

    Args:
        folder: the folder.
        names: what PixNet writes into it; other things may lie beside them. By default it must be empty.
        earlier: a file's name (or pattern) and a key of its JSON, or a table's first line, by which a folder without a
            marker is known, such as one of an earlier version.
        mark: put the marker into it; needless where `earlier` knows the folder as soon as anything is in it.

    Raises:
        InputError: if it has no marker and holds what would be replaced, or cannot be written to.
    """
    folder = Path(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"Nothing can be written to {folder}: it is a file, not a folder; choose another place.")
    make_folder(folder)
    if not (folder / MARKER).is_file():
        found = sorted(p.name for p in folder.iterdir() if names is None or p.name in set(names))
        if found and not any(_has_key(p, key) for name, key in (earlier or {}).items() for p in folder.glob(name)):
            raise InputError(
                f"{folder} holds {', '.join(found[:3])}{' and more' * (len(found) > 3)}, which PixNet did not write "
                "and would replace. Give another folder, or move that away first."
            )
        if mark:
            (folder / MARKER).write_text(_TEXT)
    return folder


def clear(folder: str | Path, earlier: Mapping[str, str] | None = None) -> Path:
    """Claim a folder as a whole and empty it.

    Raises:
        InputError: if it holds what PixNet did not write.
    """
    claim(folder, None, earlier)
    for item in Path(folder).iterdir():
        if item.name != MARKER:
            remove(item)
    return Path(folder)


def claim_run(folder: str | Path) -> Path:
    """Claim a run folder; other files, such as a log, may lie in it.

    Raises:
        InputError: if it holds what PixNet did not write and training would replace.
    """
    names = ("configs", "models", "checkpoints", "evaluation", "metrics.csv", "report.html")
    return claim(folder, names, {"configs/train.json": "network_def"})


@contextmanager
def claimed_run(folder: str | Path) -> Iterator[Path]:
    """Claim a run folder for a block; where the block fails before it wrote anything, the claim is undone.

    Raises:
        InputError: see `claim_run`.
    """
    is_new, was_ours = not os.path.lexists(folder), (Path(folder) / MARKER).is_file()
    folder = claim_run(folder)
    try:
        yield folder
    except BaseException:
        if not was_ours and [item.name for item in folder.iterdir()] == [MARKER]:
            (folder / MARKER).unlink()
            if is_new:
                folder.rmdir()
        raise


def remove_ours(folder: str | Path) -> None:
    """Remove a folder that PixNet made and marked; leave any other."""
    folder = Path(folder)
    if (folder / MARKER).is_file():
        remove(folder)


def _within(path: Path, item: Path) -> bool:
    """Whether two are the same, or one lies in the other, under any names."""
    a, b = Path(os.path.realpath(path)), Path(os.path.realpath(item))
    if a == b or (a in b.parents and a.suffix == ".zarr") or (b in a.parents and b.suffix == ".zarr"):
        return True
    return path.exists() and item.exists() and os.path.samefile(path, item)  # hard links


def _has_key(path: Path, key: str) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return text.partition("\n")[0] == key
        content = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and key in content


def _is_ours(path: Path) -> bool:
    if path.is_dir():
        return _is_our_zarr(path)
    if not path.is_file():  # a pipe, a device, a link to nothing
        return False
    if path.stat().st_size == 0:
        return True  # nothing is lost
    known = next((known for ending, known in _KNOWN.items() if path.name.endswith(ending)), None)
    try:
        return known is not None and known(path)
    except Exception:  # damaged, so not whole as ours are
        return False


def _is_our_zarr(path: Path) -> bool:
    """A map says it in its attributes, an AnnData in `uns`."""
    if (path / "uns" / "pixnet" / "zarr.json").is_file() or not any(path.iterdir()):
        return True
    try:
        return "pixnet" in json.loads((path / "zarr.json").read_text())["attributes"]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _is_our_h5ad(path: Path) -> bool:
    import h5py

    with h5py.File(path) as file:
        return "uns/pixnet" in file


def _is_our_nifti(path: Path) -> bool:
    import nibabel as nib

    header: Any = nib.load(path).header
    return bytes(header["intent_name"]).rstrip(b"\0") == b"PixNet"


def _is_our_page(path: Path) -> bool:
    with path.open("rb") as file:
        return b"<title>PixNet report of " in file.read(4096)


def _is_our_onnx(path: Path) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"pixnet_version") >= 0


def _is_our_zip(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    root = names[0].partition("/")[0] if names else ""
    return {f"{root}/configs/metadata.json", f"{root}/models/panel.json"} <= set(names)


_KNOWN: dict[str, Callable[[Path], bool]] = {
    ".h5ad": _is_our_h5ad,
    ".nii": _is_our_nifti,
    ".nii.gz": _is_our_nifti,
    ".html": _is_our_page,
    ".onnx": _is_our_onnx,
    ".zip": _is_our_zip,
}
