"""The sections in words: data, settings, versions, how figures are defined, and what they cannot tell."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from ..data.manifest import SPLITS, read_manifest, slide_name
from ..errors import InputError, plural
from .run import Run
from .text import definitions

__all__ = ["limits_section", "protocol_section"]

#: Keys of configs/train.json that decide the result, and what to call them.
_SETTINGS = {
    "seed": "seed",
    "max_epochs": "epochs",
    "batch_size": "crops per batch",
    "crops_per_slide": "crops per slide and epoch",
    "crop_px": "side of a crop (px)",
    "mpp": "working resolution (µm/px)",
    "learning_rate": "learning rate",
    "head": "head",
    "n_programs": "expression programs",
}


def protocol_section(run: Run) -> str:
    """What the model was trained on, with which settings and versions, and how the figures are defined."""
    return "".join(
        [
            "<h2>Data, protocol and versions</h2>",
            "<h3>Data</h3>",
            _data(run),
            "<h3>Model and training</h3>",
            _model(run),
            "<h3>How the figures are defined</h3>",
            _how(run),
        ]
    )


def limits_section(run: Run) -> str:
    """What the figures cannot tell."""
    about = run.evaluations[0].about
    items = []
    warning = ""
    if about.get("same_patient"):
        warning = (
            '<div class="warning"><p><b>The same patient is in training and in the scored slides</b> (or it is not '
            "known whose tissue it is). The figures say how well the model fills in tissue of a patient it has seen. "
            "They do not say how it will do on another patient’s slide, where they are usually lower: split by patient "
            "to learn that.</p></div>"
        )
    patients = int(about.get("patients", 0))
    if 0 < patients < 5:
        items.append(
            f"The scored tissue comes from {plural(patients, 'patient')}: too few to say how much results vary between "
            "people."
        )
    items += [
        "The ceiling covers counting noise only. Tissue damage, diffusion of transcripts and shifts between picture "
        "and spots lower what can be reached further, so the true limit is lower than the ceiling.",
        "PCC compares patterns within a slide. A gene can have a high PCC and still be predicted at the wrong level; "
        "MSE and MAE see that.",
        "Other scanners, stains, fixations and diseases than those trained on are not tested here.",
        "Predictions are for research. They are not measurements and not for diagnosis.",
    ]
    listed = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f"<h2>What this cannot tell</h2>{warning}<ul>{listed}</ul>"


def _data(run: Run) -> str:
    panel, about = run.panel, run.evaluations[0].about
    dataset = str(about.get("dataset") or run.config.get("dataset_dir", ""))
    rows: list[tuple[str, Any]] = [("data set", Path(dataset).name)]
    said = ""
    try:
        manifest = read_manifest(dataset)
    except InputError:
        said = '<p class="note">The data set is no longer where it was, so only what the model remembers is listed.</p>'
        trained = panel.get("training", [])
        rows.append(("training", _whose((t["section"], t.get("patient")) for t in trained)))
    else:
        rows += [(key, manifest.get(key)) for key in ("description", "reference", "licence")]
        rows += [(split, _whose((slide_name(r), r.get("patient")) for r in manifest[split])) for split in SPLITS]
    rows += [
        ("split by", about.get("split_by")),
        ("unit sizes trained on", ", ".join(f"{size:g} µm" for size in panel.get("unit_sizes_um", []))),
        ("least counts of a unit", f"{about['min_total']:g} (at 55 µm and above)" if "min_total" in about else None),
        ("transcriptome", about.get("transcriptome")),
        (
            "panels",
            ", ".join(f"{name}: {plural(len(genes), 'gene')}" for name, genes in panel.get("panels", {}).items()),
        ),
        ("genes predicted", len(panel["genes"]) if "genes" in panel else None),
    ]
    return said + definitions(rows)


def _whose(slides: Iterable[tuple[str, str | None]]) -> str:
    """Slides grouped by patient: `2 slides of 1 patient: C (C2, C3)`."""
    by_patient: dict[str, list[str]] = defaultdict(list)
    for section, patient in slides:
        by_patient["unknown" if patient is None else str(patient)].append(section)
    if not by_patient:
        return "none"
    count = sum(map(len, by_patient.values()))
    listed = "; ".join(f"{patient} ({', '.join(sections)})" for patient, sections in by_patient.items())
    return f"{plural(count, 'slide')} of {plural(len(by_patient), 'patient')}: {listed}"


def _model(run: Run) -> str:
    config, panel = run.config, run.panel
    said = "" if config else '<p class="note">There is no configs/train.json in the run folder.</p>'
    rows: list[tuple[str, Any]] = []
    network = config.get("network_def", {})
    if isinstance(network, Mapping):
        rows.append(("network", _component(network, but=("encoder", "n_genes", "head", "n_programs"))))
        rows.append(("encoder", _component(network.get("encoder", {}))))
    settings = dict(_SETTINGS)
    if config.get("head") != "programs":
        del settings["n_programs"]
    rows += [(label, config.get(key, panel.get(key))) for key, label in settings.items()]
    for key in ("loss", "optimizer", "lr_scheduler"):
        component = config.get(key, {})
        if isinstance(component, Mapping):
            rows.append((key.replace("lr_scheduler", "learning rate schedule"), _component(component)))
    weights = run.folder / "models" / "model.pt"
    if weights.is_file():
        rows.append(("weights", f"models/model.pt, SHA-256 {hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}…"))
    versions = panel.get("versions", {})
    rows.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return said + definitions(rows)


def _component(content: Mapping[str, Any], but: tuple[str, ...] = ()) -> str:
    """A component of a configuration in words; references to other parts of it say nothing here."""
    settings = [
        f"{key} {value}"
        for key, value in content.items()
        if not key.startswith("_") and key not in but and not str(value).startswith(("@", "$"))
    ]
    name = str(content.get("_target_", ""))
    return f"{name} ({', '.join(settings)})" if settings else name


def _how(run: Run) -> str:
    about = run.evaluations[0].about
    whole = about.get("transcriptome", "whole") == "whole"
    total = "all genes measured in the unit" if whole else "the genes of the targeted panel"
    rows = [
        (
            "what is predicted",
            f"log1p CP10k: ln(1 + 10,000 · count / total), where the total is over {total}. Below 55 µm, where a "
            "unit holds few transcripts, ln(1 + count) is compared instead, with one size factor per slide.",
        ),
        (
            "PCC",
            "Pearson correlation of measured and predicted values of one gene over the units of one slide; averaged "
            "over slides, then over patients. PCC@F, PCC@S and PCC@M are its first quartile, median and mean over the "
            f"genes of {run.evaluations[0].panel}. A constant prediction scores 0.",
        ),
        (
            "coarser scales",
            "PixNet bins the raw counts of units to the squares of a grid, and normalises them then; the "
            "predicted map is integrated over the same units. Scores are averaged over four origins of the grid.",
        ),
        (
            "ceiling",
            "The counts are split at random into halves 20 times; with r the correlation of the halves, no predictor "
            "is expected above √(2r / (1 + r)). It covers counting noise only.",
        ),
        (
            "panels",
            "Chosen on the training slides alone. “mean” panels hold the genes with the highest mean log1p CP10k; "
            "“hvg” panels hold those that vary most beyond counting noise.",
        ),
        (
            "MSE, MAE",
            "Mean squared and mean absolute error of what is compared, over units, then slides, patients and genes.",
        ),
    ]
    return definitions(rows)
