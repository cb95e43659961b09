"""The ridge branch is fitted on the training slides, and too little tissue is a sentence."""

from __future__ import annotations

import json

import pytest
import torch

from bundle import fit_ridge, workflows
from bundle.data.crop_dataset import CropDataset
from bundle.errors import InputError
from bundle.workflows.load_network import load_network
from networks import KMeansPatchEncoder, PixNet, RidgeBranch, SwinEncoder


def _net() -> PixNet:
    encoder = SwinEncoder(embed_dim=12, depths=(2, 2), num_heads=(1, 2), window_size=4)
    return PixNet(2, encoder, (8, 8), ridge=RidgeBranch(2, KMeansPatchEncoder((4, 16), 8), rank=2))


def test_the_patches_are_learned_and_the_regression_starts_from_the_units_mean(tiny_run):
    network = load_network(tiny_run)[0]
    # at random a bias is at most 1 / sqrt(3 * 6 * 6) = 0.1; whitened filters cancel what all patches share
    assert float(network.ridge.filters.encoder.conv.bias.abs().max()) > 0.2
    torch.testing.assert_close(network.ridge.bias, network.head.mean, atol=1e-3, rtol=0)
    assert float(network.ridge.components.abs().sum()) > 0


def test_it_can_be_set_to_null(phantom, tiny, tmp_path):
    settings = {**tiny, "network_def#ridge": None}
    workflows.train(phantom, tmp_path / "run", [], settings)
    assert load_network(tmp_path / "run")[0].ridge is None
    kept = json.loads((tmp_path / "run" / "configs" / "train.json").read_text())
    assert kept["network_def"]["ridge"] is None
    workflows.train(phantom, tmp_path / "run", [], {**settings, "max_epochs": 2})  # not a run with other settings
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3


def test_a_run_that_goes_on_is_not_fitted_again(phantom, tiny, tmp_path, monkeypatch):
    fits, fit = [], RidgeBranch.fit
    monkeypatch.setattr(RidgeBranch, "fit", lambda self, *given: fits.append(1) or fit(self, *given))
    for epochs in (1, 2):
        workflows.train(phantom, tmp_path / "run", [], {**tiny, "max_epochs": epochs})
        assert len(fits) == 1


def test_without_it_a_slide_may_lack_the_coarsest_size(phantom, tiny, tmp_path):
    data = json.loads((phantom / "dataset.json").read_text())
    for record in [*data["training"], *data["validation"], *data["test"]]:
        record["image"] = str(phantom / record["image"])
        record["label"] = [str(phantom / label) for label in record["label"]]
    (lacking,) = data["validation"]
    data["training"].append({**lacking, "label": lacking["label"][1:]})
    data["validation"] = []
    (tmp_path / "dataset.json").write_text(json.dumps(data))
    settings = {**tiny, "unit_sizes_um": [55, 16], "head": "programs", "n_programs": 4}
    workflows.train(tmp_path, tmp_path / "run", [], settings)
    assert load_network(tmp_path / "run")[0].ridge is None


def test_glass_alone_is_reported_in_a_sentence():
    crops = [{"image": torch.full((3, 64, 64), 255.0)}]
    with pytest.raises(InputError, match=r"0 patches of tissue.*--set network_def#ridge=null"):
        fit_ridge(_net(), [], lambda *_: torch.zeros(0), None, crops)


@pytest.mark.parametrize("n_slides", [3, 34])
def test_the_patches_are_drawn_from_every_slide_of_up_to_36(monkeypatch, n_slides: int):
    class Crops:
        """Of slides in turn, as `CropDataset` draws them; each crop tells its slide."""

        def __len__(self) -> int:
            return 24 * n_slides

        def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
            return {"image": torch.full((3, 8, 8), float(CropDataset._slide_of(self, item)))}  # type: ignore[arg-type]

        _slides = range(n_slides)

    seen: list[torch.Tensor] = []

    class Learned(Exception):
        """Enough was seen."""

    def learn(_: object, images: list[torch.Tensor]) -> None:
        seen.extend(images)
        raise Learned

    monkeypatch.setattr(KMeansPatchEncoder, "learn", learn)
    with pytest.raises(Learned):
        fit_ridge(_net(), [], lambda *_: torch.zeros(0), None, Crops())
    count = torch.bincount(torch.tensor([int(image.max()) for image in seen]), minlength=n_slides)
    assert count.min() >= 1
    assert count.max() - count.min() <= 1
