"""A run that an earlier version trained, under the names of that time, still works."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from bundle import config, workflows
from bundle.config.earlier import today_weights
from bundle.config.merge import merge_config
from bundle.config.trust import read_model
from bundle.errors import InputError
from bundle.integrations.monai_label.models import fine_tune
from bundle.training.weights import load_weights
from bundle.workflows.load_network import load_network

HERE = Path(__file__).parent / "earlier_run"
CONFIGS = config.bundle_root() / "configs"
TINY = {
    "mpp": 2.0,
    "crop_px": 128,
    "crops_per_slide": 2,
    "val_interval": 1,
    "min_total": 20,
    "ema_decay": 0.8,
    "network_def#encoder": {
        "_target_": "networks.SwinEncoder",
        "embed_dim": 8,
        "depths": [2, 2],
        "num_heads": [1, 2],
        "window_size": 4,
    },
    "network_def#decoder_channels": [8, 8],
    "network_def#ridge#encoder#strides": [4, 16],
    "network_def#ridge#encoder#n_patches": 8,
    "network_def#ridge#context_px": 48,
}


def _picture(side: int = 512) -> np.ndarray:
    """Purple blobs on pink, uint8 (side, side, 3)."""
    dark = np.kron(np.random.default_rng(0).random((side // 16, side // 16)), np.ones((16, 16)))[..., None]
    return (np.array([230, 170, 200]) * (1 - dark) + np.array([110, 60, 150]) * dark).round().astype(np.uint8)


@pytest.fixture
def run(tmp_path) -> Path:
    with zipfile.ZipFile(HERE / "run.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "run"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The data set that it was trained on."""
    from bundle.datasets.phantom import make_phantom

    folder = tmp_path_factory.mktemp("earlier")
    return make_phantom(folder, slides=3, size_um=600.0, mpp=1.0, genes=12, units="spot:55:60,bin:16")


@pytest.fixture(scope="module")
def then() -> dict[str, np.ndarray]:
    return dict(np.load(HERE / "prediction.npz"))


def test_its_network_gives_the_same_values(run, then):
    network = load_network(run)[0]
    scale = torch.tensor([[185.0, 145.0, 180.0], [45.0, 50.0, 40.0]]).view(2, 1, 3, 1, 1)
    image = (torch.from_numpy(_picture(128)).movedim(-1, 0)[None].float() - scale[0]) / scale[1]
    with torch.no_grad():
        dense = network.project(network.features(image).movedim(1, -1)).movedim(-1, 1)[..., ::4, ::4]
    np.testing.assert_allclose(dense.numpy(), then["dense"], rtol=1e-6, atol=2e-6)


def test_it_predicts_a_slide_as_before(run, then, tmp_path, write_slide):
    slide = write_slide(tmp_path / "slide.tif", _picture(), 2.0, pyramid=False)
    out = tmp_path / "p.h5ad"
    workflows.predict(slide, out, run, {"spot_um": 55.0, "pitch_um": 110.0, "all_genes": True})
    adata = ad.read_h5ad(out)
    assert list(adata.var_names) == list(then["genes"])
    np.testing.assert_array_equal(adata.obsm["spatial"], then["spatial"])
    np.testing.assert_allclose(adata.X, then["X"], rtol=1e-6, atol=1e-5)


def test_it_is_evaluated_and_resumed(run, data):
    validated = pd.read_csv(run / "evaluation" / "validation_genes.csv")
    workflows.evaluate(run, data, split="validation", name="again")
    again = pd.read_csv(run / "evaluation" / "again_genes.csv")
    pd.testing.assert_frame_equal(again[validated.columns], validated, rtol=1e-4)
    ridge = {name: value for name, value in load_network(run)[0].state_dict().items() if name.startswith("ridge.")}
    other = {**TINY, "learning_rate": 0.1, "network_def#ridge#rank": 5, "max_epochs": 2}
    with pytest.raises(InputError, match=r"other settings \(learning_rate, network_def\)"):
        workflows.train(data, run, settings=other)
    workflows.train(data, run, settings={**TINY, "max_epochs": 2})
    assert list(pd.read_csv(run / "metrics.csv")["epoch"]) == [1, 2]
    now = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    assert set(now) == {"network", "optimizer", "lr_scheduler", "trainer", "ema", "best_model"}
    assert int(now["ema"]["n_averaged"]) == 2  # one step an epoch
    assert all(torch.equal(now["network"][name], value) for name, value in ridge.items())
    assert not any(name.startswith("texture.") for name in torch.load(run / "models" / "model.pt", weights_only=True))
    model = json.loads((run / "configs" / "model.json").read_text())
    assert model["network_def"]["ridge"]["_target_"] == "networks.RidgeBranch"


def test_a_training_starts_from_it(run, data):
    from bundle.data.manifest import read_split

    ridge = load_network(run)[0].ridge.loadings
    tuned = fine_tune(run, read_split(data, "training"), {"max_epochs": 1, "crops_per_slide": 2, "learning_rate": 0.01})
    network = load_network(tuned)[0]
    assert torch.equal(network.ridge.loadings, ridge)
    assert not torch.equal(network.head.weight.weight, load_network(run)[0].head.weight.weight)


def test_its_description_needs_no_trust(run):
    content = read_model(run / "configs" / "model.json")
    assert content["network_def"]["ridge"]["encoder"]["_target_"] == "networks.KMeansPatchEncoder"
    path = run / "configs" / "model.json"
    path.write_text(path.read_text().replace("networks.TextureExpert", "os.system"))
    with pytest.raises(InputError, match=r"would run os\.system"):
        read_model(path)


def test_keys_of_earlier_versions_are_understood():
    keys = {"network_def#texture#rank": 3, "train#sampler": {"_target_": "x"}, "texture_start": None}
    merged = merge_config([CONFIGS / "train.json"], keys)
    assert merged["network_def"]["ridge"]["rank"] == 3
    assert merged["train"]["dataloader"]["sampler"] == {"_target_": "x"}
    assert "texture_start" not in merged
    assert merge_config([CONFIGS / "train.json"], {"network_def#texture": None})["network_def"]["ridge"] is None
    assert merge_config([CONFIGS / "inference.json"], {"symmetries": [0, 4]})["test_time_augmentation"] == [0, 4]
    with pytest.raises(
        InputError, match=r'the key "texture_start" of earlier versions is gone.*network_def#ridge=null'
    ):
        merge_config([CONFIGS / "train.json"], {"texture_start": {"_target_": "x"}})


def test_weights_of_a_network_that_has_such_a_name_keep_it(tmp_path):
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.texture, self.ridge = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)

    state = Own().state_dict()
    assert list(today_weights(state, state)) == list(state)
    torch.save(state, tmp_path / "model.pt")
    load_weights(Own(), tmp_path / "model.pt")
