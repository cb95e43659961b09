"""Checks that run a bundle: its configurations, its network and its workflows, with its own weights if it has any."""

from __future__ import annotations

import json
import traceback
import zipfile
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, verify_net_in_out

from ..export import torchscript
from ..processes import monai_command, run_monai
from .subject import CannotPass, NotRun, Subject, demand

__all__ = ["SHORT", "properties", "scripted", "shapes", "traced", "workflow"]

#: Training that takes seconds on a small generated data set.
SHORT = {"max_epochs": 1, "crops_per_slide": 2, "crop_px": 256, "min_total": 20}


def properties(kind: str, name: str, subject: Subject) -> None:
    """The properties that MONAI requires of a workflow of this kind."""
    files, own = subject.model()
    own |= {"dataset_dir": str(subject.dataset), "bundle_root": str(subject.folder)}
    own |= {"output_dir": str(subject.work / "unused")}
    if name == "evaluate":  # by default its model is the run that it writes to
        own.setdefault("model_dir", str(subject.weights.parent))
    elif name == "inference":
        own |= {"slides": str(subject.slide()), "output": str(subject.work / "unused.h5ad"), "bin_um": 16.0}
    workflow = ConfigWorkflow(
        config_file=[str(path) for path in (subject.folder / "configs" / f"{name}.json", *files)],
        meta_file=str(subject.folder / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type=kind,
        **own,
    )
    workflow.initialize()
    demand(workflow.network_def is not None, "no network")
    missing = workflow.check_properties()
    demand(bool(workflow.properties) and missing == [], f"missing: {missing}")


def shapes(subject: Subject) -> None:
    """The network's input and output against the metadata: the bundle's, and the run's where that has the weights."""
    verify_net_in_out(**_described(subject), device="cpu")
    files, own = subject.model()
    if files:
        configs = [str(path) for path in (subject.folder / "configs" / "inference.json", *files)]
        meta = str(subject.run / "configs" / "metadata.json")
        verify_net_in_out(**{**_described(subject), **own, "config_file": configs, "meta_file": meta}, device="cpu")


def _described(subject: Subject) -> dict[str, Any]:
    configs = subject.folder / "configs"
    files = {"meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.json")}
    return {"net_id": "network_def", "bundle_root": str(subject.folder), **files}


def _network(subject: Subject) -> Any:
    """The bundle's network with its own weights."""
    config = subject.read("inference") | {"bundle_root": str(subject.folder)}
    network = ConfigParser(config).get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(subject.weights, map_location="cpu", weights_only=True))
    return network


def scripted(subject: Subject) -> None:
    """TorchScript of any size. What the compiler rejects in another package cannot pass; any other fault is ours."""
    _only_with_weights(subject)
    try:
        ckpt_export(**_described(subject), filepath=str(subject.work / "scripted.ts"), ckpt_file=str(subject.weights))
    except Exception as error:
        refused = _refused(_network(subject)) if _by_the_compiler(error) else {}
        theirs, ours = (
            sorted(name for name, home in refused.items() if (home == "monai") is of) for of in (True, False)
        )
        if not theirs:
            raise
        beside = f", nor {', '.join(ours)} here" if ours else ""
        raise CannotPass(f"MONAI's own {', '.join(theirs)} cannot be scripted{beside} (docs/README.md)") from None


def _by_the_compiler(error: Exception) -> bool:
    """Whether TorchScript's compiler raised it: its errors have no common class."""
    compiler = Path(torch.jit.__file__).parent
    return any(compiler in Path(frame.filename).parents for frame in traceback.extract_tb(error.__traceback__))


def _refused(network: torch.nn.Module) -> dict[str, str]:
    """Names of the innermost modules that cannot be scripted, and the packages that they are from."""
    bad = {module for module in network.modules() if not _scripts(module)}
    inner = [module for module in bad if not bad.intersection(module.children())]
    return {type(module).__name__: type(module).__module__.partition(".")[0] for module in inner}


def _scripts(module: torch.nn.Module) -> bool:
    try:
        torch.jit.script(module)
    except Exception:
        return False
    return True


def traced(subject: Subject) -> str:
    """TorchScript of one size, against the network."""
    _only_with_weights(subject)
    network = _network(subject)
    side = 3 * network.grid_px
    file = subject.work / "traced.ts"
    trace = torchscript(subject.folder, file, side)
    image = torch.randn((1, 3, side, side), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected, got = network(image), trace(image)
    demand(bool(got.isfinite().all()), "the network's output is not finite")
    difference = float((got - expected).abs().max() / (expected.max() - expected.min()))
    demand(difference <= 1e-4, f"the traced network differs by {difference:.1e} of the range of its values")
    with zipfile.ZipFile(file) as archive:
        held = {Path(name).name for name in archive.namelist()}
    demand({"metadata.json", "inference.json"} <= held, "the file holds no metadata or configuration")
    return f"at one size; differs by {difference:.0e} of the range"


def _only_with_weights(subject: Subject) -> None:
    if not subject.weights.is_file():
        raise NotRun("there are no weights here, see above")


def workflow(name: str, ranks: int, subject: Subject) -> None:
    """MONAI's own command, from inside the bundle."""
    out = subject.work / f"{name}_{ranks}"
    files, own = subject.model()
    files = [subject.folder / "configs" / f"{name}.json", *files]
    files += [subject.folder / "configs" / f"multi_gpu_{name}.json"] if ranks > 1 else []
    options: dict[str, Any] = {"dataset_dir": subject.dataset, "output_dir": out}
    if name == "train":
        options |= SHORT
    elif name == "evaluate":
        options |= {"model_dir": subject.weights.parent, **own}
    else:
        options |= {**own, "slides": subject.slide(), "bin_um": 16, "output": out / "bins.h5ad"}
    run_id = {"train": "training", "evaluate": "evaluating", "inference": "inferring"}[name]
    run_monai(monai_command(run_id, files, options, ranks), cwd=subject.folder)
    written = {"train": "models/model.pt", "evaluate": "evaluation/test.json", "inference": "bins.h5ad"}[name]
    demand((out / written).is_file(), f"it ran, but there is no {written}")
    demand(_finite(out / written), f"it ran, but {written} holds values that are not finite")


def _finite(path: Path) -> bool:
    """Whether weights, figures or predictions are finite."""
    if path.suffix == ".pt":
        return all(bool(value.isfinite().all()) for value in torch.load(path, weights_only=True).values())
    if path.suffix == ".h5ad":
        return bool(np.isfinite(ad.read_h5ad(path).X).all())
    figures = json.loads(path.read_text())["scales"]["native"]
    return None not in (figures["PCC@M"], figures["MSE"])  # as JSON has what is undefined
