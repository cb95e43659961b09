"""What MONAI's model zoo checks of a bundle before it takes it, without the network.

After `ci/verify_bundle.py` of the zoo: the files, the metadata's form and versions, the network's shapes, TorchScript.
On the repository, and on the bundle that `pixnet export-bundle` writes, which is what would be handed in.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import tomllib
import zipfile
from pathlib import Path

import monai
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out

from bundle.archive import export_bundle
from bundle.export import load_network

pytestmark = pytest.mark.filterwarnings("ignore:No hash value provided:UserWarning")

ROOT = Path(__file__).parents[1]
METADATA = json.loads((ROOT / "configs" / "metadata.json").read_text())


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    with zipfile.ZipFile(export_bundle(tiny_run, folder / "pixnet_tiny.zip")) as archive:
        archive.extractall(folder)
    return folder / "pixnet_tiny"


@pytest.fixture(params=["repository", "exported"])
def bundle(request) -> Path:
    return ROOT if request.param == "repository" else request.getfixturevalue("exported")


def test_the_files_are_there(bundle):
    files = ("configs/metadata.json", "configs/train.json", "configs/evaluate.json", "configs/inference.json")
    for name in (*files, "configs/logging.conf", "docs/README.md", "docs/data_license.txt", "LICENSE"):
        assert (bundle / name).is_file(), name
    # No weights are hosted, so no file may promise an address; an exported bundle brings its own.
    assert not list(bundle.glob("large_files.*"))
    assert (bundle / "models" / "model.pt").is_file() == (bundle != ROOT)


@pytest.fixture(autouse=True)
def _no_download(monkeypatch):
    """Nothing is fetched."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a test went to the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


def verified(metadata: Path, folder: Path) -> None:
    """MONAI's check against a schema that is there already, so that none is downloaded."""
    schema = Path(shutil.copy(ROOT / "tests" / "metadata_schema.json", folder / "schema.json"))
    verify_metadata(meta_file=str(metadata), filepath=str(schema))


def test_the_metadata_has_the_form(bundle, tmp_path):
    verified(bundle / "configs" / "metadata.json", tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.pop("copyright"),
        lambda m: m.pop("network_data_format"),
        lambda m: m["network_data_format"].pop("outputs"),
        lambda m: m["network_data_format"]["inputs"]["image"].pop("dtype"),
        lambda m: m["network_data_format"]["outputs"]["pred"].update(num_channels="250"),
        lambda m: m.update(supported_apps=["monailabel"]),
        lambda m: m["required_packages_version"].update(scipy=">=1.13"),
    ],
)
def test_the_check_of_the_metadata_can_fail(spoil, tmp_path):
    metadata = copy.deepcopy(METADATA)
    spoil(metadata)
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="schema"):
        verified(path, tmp_path)


def test_the_version_is_in_the_changelog():
    assert METADATA["version"] in METADATA["changelog"]


def test_the_versions_are_the_ones_seen_working_together():
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    named = METADATA["required_packages_version"] | {"torch": METADATA["pytorch_version"]}
    named |= {"monai": METADATA["monai_version"], "numpy": METADATA["numpy_version"]}
    assert {name: pinned.get(name) for name in named} == named
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w.-]+", requirement)[0] for requirement in project["dependencies"]}
    assert needed == named.keys()
    assert monai.__version__ == METADATA["monai_version"]


@pytest.mark.parametrize(("kind", "name"), [("train", "train"), ("eval", "evaluate"), ("infer", "inference")])
def test_a_configuration_has_the_properties_of_its_kind(kind: str, name: str, tiny_run, phantom, tmp_path):
    model = json.loads((tiny_run / "configs" / "model.json").read_text())
    model |= {"dataset_dir": str(phantom), "bundle_root": str(ROOT), "model_dir": str(tiny_run / "models")}
    if name == "inference":
        model |= {"slides": str(phantom / "slides" / "P3.tif"), "bin_um": 16.0, "output": str(tmp_path / "o.h5ad")}
    else:
        model |= {"output_dir": str(tmp_path)}
    workflow = ConfigWorkflow(
        config_file=str(ROOT / "configs" / f"{name}.json"),
        meta_file=str(ROOT / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type=kind,
        **model,
    )
    assert workflow.properties
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.network_def is not None


def network_options(bundle: Path) -> dict:
    files = {"meta_file": "configs/metadata.json", "config_file": "configs/inference.json"}
    paths = {key: str(bundle / value) for key, value in files.items()}
    return {"net_id": "network_def", "bundle_root": str(bundle), **paths}


def test_the_network_has_the_shapes_of_the_metadata(bundle):
    verify_net_in_out(**network_options(bundle), device="cpu")


def test_the_check_of_shapes_can_fail(exported, tmp_path):
    wrong = json.loads((exported / "configs" / "metadata.json").read_text())
    wrong["network_data_format"]["outputs"]["pred"]["num_channels"] += 1
    (tmp_path / "metadata.json").write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match="output channel number"):
        verify_net_in_out(**network_options(exported) | {"meta_file": str(tmp_path / "metadata.json")}, device="cpu")


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_the_weights_become_torchscript_by_tracing(exported, tiny_run, tmp_path):
    path = tmp_path / "model.ts"
    weights = str(exported / "models" / "model.pt")
    options = network_options(exported) | {"filepath": str(path), "ckpt_file": weights}
    ckpt_export(**options, use_trace=True, input_shape=[1, 3, 96, 96])
    image = torch.randn((1, 3, 96, 96), generator=torch.Generator().manual_seed(5))
    network, _ = load_network(tiny_run)
    with torch.no_grad():
        expected, got = network(image), torch.jit.load(path)(image)
    assert (got - expected).abs().max() <= 1e-5 * np.ptp(expected.numpy())
    with zipfile.ZipFile(path) as archive:
        assert {Path(name).name for name in archive.namelist()} >= {"metadata.json", "inference.json"}


def test_the_network_cannot_be_scripted_as_the_card_says(exported, tmp_path):
    options = network_options(exported) | {"ckpt_file": str(exported / "models" / "model.pt")}
    with pytest.raises(Exception, match=r"annotation|script|Compiled|Tuple|range"):
        ckpt_export(**options, filepath=str(tmp_path / "model.ts"))
    assert "--use_trace" in (ROOT / "docs" / "README.md").read_text()
