"""A trained model as the plain bundle folder that `monai.bundle` runs, in a zip."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from ..config.literals import unescape
from ..config.metadata import model_metadata
from ..config.root import bundle_root
from ..config.trust import BACKBONE_OF_RUN, read_model, within
from ..data.panel import load_panel
from ..errors import InputError
from ..files.atomic import replacing
from ..files.ownership import check_output
from ..files.reading import read_json
from ..workflows.load_network import load_network

__all__ = ["export_bundle"]

#: The bundle's Python packages; packages within them go along.
_PACKAGES = ("bundle", "networks", "transforms")
#: Of a package, its modules and these files.
_BESIDE_MODULES = ("no_deps.txt", "py.typed", "requirements.txt")
_MODULE = re.compile(r"[A-Za-z_]\w*\.pyi?", re.ASCII)
#: PixNet's own configurations; a user may keep others beside them.
_CONFIGS = (
    *("train", "evaluate", "inference", "metadata", "multi_gpu_train", "multi_gpu_evaluate", "fine_tune"),
    *("mixed_sizes", "programs", "backbone", "efficientnet_lite", "swin_unetr"),
)
#: The model card, and the licence of the data; the pages that these lead to go along.
_PAGES = ("README.md", "data_license.txt")
_LINK = re.compile(r"\]\(([^)#\s]+)")
#: Configurations that describe a model, which take over the run's.
_OF_A_MODEL = ("train.json", "evaluate.json", "inference.json")
#: Of the run: the model, and how well it predicted each gene, which predictions repeat.
_OF_THE_RUN = ("models/model.pt", "models/panel.json", "evaluation/validation.json", "evaluation/validation_genes.csv")


def export_bundle(run: str | Path, out: str | Path, trust: bool = False) -> Path:
    """Write a zip that unpacks to a folder of the zip's name, from inside which `monai.bundle` needs no PixNet.

    Its configurations hold the run's network, resolution and intensities, its metadata the run's genes and sizes. The
    bytes depend on the run, the bundle and the zip's name alone. `models/panel.json` names the training slides and
    patients: look at it before you pass the zip on. Other files in the bundle's or the run's folders, and links that
    lead out of them, stay behind.

    Args:
        run: the run folder.
        out: the .zip to write.
        trust: whether the model may run code of its own.

    Raises:
        InputError: if the folder holds no finished run or a link that leaves it, the run needs `trust`, or the zip
            cannot be written.
    """
    run, out = Path(run), Path(out)
    if out.suffix != ".zip":
        raise InputError(f"{out}: a bundle is written as a zip; end its name in .zip.")
    if out.is_dir():
        raise InputError(f"{out} is a folder; give the name of the file to write.")
    check_output(out)
    network, _ = load_network(run, trust)
    files = _code() | {"LICENSE": _license()}
    model = _carry_folders(read_model(within(run, "configs/model.json"), trust), files, run)
    for name in _OF_A_MODEL:
        config = json.loads(files[f"configs/{name}"])
        files[f"configs/{name}"] = _json(config | {key: value for key, value in model.items() if key in config})
    genes = load_panel(run / "models" / "panel.json").genes
    files["configs/metadata.json"] = _json(model_metadata(network, genes))
    for name in _OF_THE_RUN:
        if (run / name).is_file():
            files[name] = within(run, name).read_bytes()
    try:
        with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(f"{out.stem}/{name}", (1980, 1, 1, 0, 0, 0))
                entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
                archive.writestr(entry, files[name])
    except OSError as error:
        raise InputError(f"Nothing can be written to {out} ({error.strerror}); choose another place.") from error
    return out


def _code() -> dict[str, bytes]:
    """The bundle's own files by their path."""
    root = bundle_root().resolve()
    paths = {root / "configs" / f"{name}.json" for name in _CONFIGS} | {root / "configs" / "logging.conf"}
    paths |= _pages(root / "docs")
    paths |= {path for package in _PACKAGES for path in _modules(root / package)}
    own = [path for path in paths if _is_own(path, root)]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in own}


def _is_own(path: Path, root: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(root)


def _pages(docs: Path) -> set[Path]:
    """The pages and pictures in `docs` that its first pages link to, these included."""
    found: set[Path] = set()
    waiting = [docs / name for name in _PAGES]
    while waiting:
        page = waiting.pop()
        if page in found or not _is_own(page, docs):
            continue
        found.add(page)
        if page.suffix == ".md":
            links = _LINK.findall(page.read_text(encoding="utf-8"))
            waiting += [Path(os.path.normpath(page.parent / link)) for link in links if "://" not in link]
    return found


def _modules(package: Path) -> Iterator[Path]:
    for path in package.iterdir():
        if path.name == "public":  # what `import pixnet` gives, where PixNet is installed
            continue
        if path.is_dir() and not path.is_symlink() and (path / "__init__.py").is_file():
            yield from _modules(path)
        elif _MODULE.fullmatch(path.name) or path.name in _BESIDE_MODULES:
            yield path


def _carry_folders(config: Any, files: dict[str, bytes], run: Path) -> Any:
    """The configuration with a backbone's `folder` moved into the bundle; earlier versions name one outside of the run.

    `model.pt` holds the weights, so its `config.json` is all that is needed of the folder.
    """
    if not isinstance(config, dict):
        return config
    carried = {key: _carry_folders(value, files, run) for key, value in config.items()}
    folder = config.get("folder")
    if config.get("_target_") != "networks.BackboneEncoder" or not isinstance(folder, str):
        return carried
    name = "models/backbone/config.json"
    description = within(run, name) if folder == BACKBONE_OF_RUN else Path(str(unescape(folder))) / "config.json"
    if description.is_file() and "model_type" in read_json(description):
        files[name] = description.read_bytes()
        carried["folder"] = "$@bundle_root + '/models/backbone'"
    return carried


def _license() -> bytes:
    """Of the repository, or of the installed package."""
    path = bundle_root() / "LICENSE"
    if path.is_file():
        return path.read_bytes()
    try:
        text = distribution("pixnet").read_text("licenses/LICENSE")
    except PackageNotFoundError:
        text = None
    if text is None:
        raise InputError("The installed PixNet has lost its LICENSE, without which it is not passed on: install again.")
    return text.encode()


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=4) + "\n").encode()
