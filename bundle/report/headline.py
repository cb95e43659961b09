"""The section that sums a run up."""

from __future__ import annotations

import math
from html import escape

from ..errors import plural
from .run import Run
from .scales import other_panels
from .text import number, share

__all__ = ["headline_section"]


def headline_section(run: Run) -> str:
    """Title, the sentence that sums the run up, and its figures in large."""
    evaluation = run.evaluations[0]
    about, main = evaluation.about, evaluation.main
    split, patients = str(about.get("split", evaluation.name)), int(about.get("patients", 0))
    whose = f", from {plural(patients, 'patient')}" if patients else ""
    sentence = (
        f"On the <b>{escape(split)}</b> split ({plural(main['slides'], 'slide')}{whose}; "
        f"{plural(main['units'], 'unit')} of {main['size_um']:g} µm), measured and predicted expression correlate "
        f"at <b>PCC@M {number(main['PCC@M'])}</b>, the mean over {plural(about['genes'], 'gene')}"
    )
    if math.isfinite(main["ceiling@M"]):
        sentence += f"; counting noise alone lets no predictor hope for more than {number(main['ceiling@M'])}"
    sentence += ". 0 is no relation between the two, 1 a perfect one."
    if evaluation.name == "validation":
        sentence += (
            " These slides chose the weights to keep, so the figure flatters; "
            "<code>pixnet evaluate</code> scores the test."
        )
    seen = len(about.get("seen_patients", ()))
    if about.get("same_patient") and 0 < seen < patients:
        badge = f'<span class="badge warn">{seen} of {patients} patients in training and {escape(split)}</span>'
    elif about.get("same_patient"):
        badge = f'<span class="badge warn">same patient in training and {escape(split)}</span>'
    else:
        badge = f'<span class="badge">no patient in both training and {escape(split)}</span>'
    tiles = [
        (number(main["PCC@M"]), f"PCC@M, {escape(evaluation.panel)} at {main['size_um']:g} µm"),
        (number(main["ceiling@M"]), "ceiling of counting noise"),
        (share(main["PCC@M"], main["ceiling@M"]), "share of the ceiling"),
        (number(main["PCC@M_residual"]), "with each unit’s depth taken out (residual PCC@M)"),
    ]
    tiles += [(number(main[f"PCC@M_{name}"]), f"PCC@M, {escape(name)} genes") for name in other_panels(main)]
    boxes = "".join(
        f'<div class="tile{" first" if i == 0 else ""}"><b>{value}</b><span>{label}</span></div>'
        for i, (value, label) in enumerate(tiles)
    )
    if about.get("transcriptome") == "panel":
        badge += '<span class="badge warn">of a targeted panel: not comparable with a whole transcriptome</span>'
    return (
        '<p class="eyebrow">PixNet: gene expression from H&amp;E slides</p>'
        f"<h1>Report of {escape(run.folder.name)}</h1>"
        f'<p class="lead">{sentence}</p><p>{badge}</p><div class="tiles">{boxes}</div>'
    )
