"""The audit as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import plural
from ..report.text import number, share

__all__ = ["as_text"]

_HEAD = (
    "scale",
    "units",
    "PCC@F",
    "PCC@S",
    "PCC@M",
    "ceiling",
    "share",
    "pooled",
    "residual",
    "its share",
    "MSE",
    "MAE",
)


def as_text(result: Mapping[str, Any]) -> str:
    """What was matched, a table of figures per scale, the interval and the depth oracle."""
    parts = [_matching(name, about) for name, about in result["matched"].items()]
    native = result["scales"]["native"]
    constant = plural(native["constant_genes"], "gene")
    parts.append(
        f"{plural(result['shared_genes'], 'shared gene')}; figures are over the {result['genes']:,} of "
        f"{result['panel']}. Constant in the "
        f"measurement, so not scored: {constant}. Constant in the prediction, scored 0: "
        f"{plural(result['constant_predictions'], 'gene')}."
    )
    if result["same_patient"]:
        parts.append(
            "same_patient: the model was trained on tissue of a patient that is scored, so figures on other patients "
            "will be lower."
        )
    parts.append("\n" + _columns([_HEAD, *_rows(result["scales"])]))
    if len(result["per_slide"]) > 1:
        slides = [
            (name, *row[1:]) for name, own in result["per_slide"].items() for row in _rows({"native": own["native"]})
        ]
        parts.append("\n" + _columns([("slide", *_HEAD[1:]), *slides]))
    if native["target"] == "log1p_counts":
        parts.append("\nFigures of the units are of log1p counts, with one depth for the whole slide.")
    bounds = result["interval_95"]
    parts.append(
        f"\nPCC@M {number(native['PCC@M'])}, 95 % interval {_between(bounds['PCC@M'])} (bootstrap over "
        f"{bounds['blocks']} blocks of {bounds['block']} within slides)"
    )
    if "coverage_95" in result:
        parts.append(
            f"Standard errors: {100 * result['coverage_95']:.1f} % of the measured values of "
            f"{plural(result['coverage_95_units'], 'unit')} lie within ±1.96 of them (95 % where they are right, "
            "counting noise included)"
        )
    oracle = result["depth_oracle"]
    if oracle is not None:
        parts.append(
            f"Depth oracle (diagnostic: a unit's measured total and nothing else, fitted on {oracle['fitted_on']}"
            f"{', which flatters it' if oracle['fitted_on'] == 'the slide itself' else ''}): "
            f"PCC@M {number(oracle['PCC@M'])}, residual {number(oracle['PCC@M_residual'])}\n"
            f"Prediction minus depth oracle: {number(oracle['prediction_minus_oracle'])}, 95 % interval "
            f"{_between(oracle['prediction_minus_oracle_interval_95'])} (paired)"
        )
    other = result["against"]
    if other is not None:
        parts.append(
            f"Against {', '.join(Path(p).name for p in other['pred'])}, on the {other['units']:,} units and "
            f"{other['genes']:,} genes that both predict: PCC@M {number(other['PCC@M'])} and "
            f"{number(other['PCC@M_against'])}, difference {number(other['difference'])}, 95 % interval "
            f"{_between(other['difference_interval_95'])} (paired)"
        )
    squares = sorted({about["squares"] for about in result["matched"].values()})
    if len(result["scales"]) > 1:
        parts.append(f"Squares of coarser scales: {'; '.join(squares)}.")
    parts += [
        f"Scale {scale:g} µm is left out: it has too few units a square, or too few squares."
        for scale in result["scales_left_out"]
    ]
    return "\n".join([*parts, *(f"Note: {text}" for text in result["warnings"])])


def _matching(name: str, about: Mapping[str, Any]) -> str:
    return (
        f"{name}: {plural(about['scored_units'], 'unit')} scored, matched by {about['by']}; without a partner: "
        f"{about['predicted_units_unmatched']:,} of {about['predicted_units']:,} predicted and "
        f"{about['measured_units_unmatched']:,} of {about['measured_units']:,} measured; "
        f"{about['filtered_units']:,} measured left out (off tissue, or too few counts). "
        f"X is {about['unit_of_X']}."
    )


def _rows(scales: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    rows = []
    for scale, f in scales.items():
        rows.append(
            (
                f"{f['size_um']:g} µm {'units' if scale == 'native' else 'squares'}",
                f"{f['units']:,}",
                *(number(f[key]) for key in ("PCC@F", "PCC@S", "PCC@M", "ceiling@M")),
                share(f["PCC@M"], f["ceiling@M"]),
                *(number(f[key]) for key in ("PCC@M_pooled", "PCC@M_residual")),
                share(f["PCC@M_residual"], f["ceiling@M_residual"]),
                *(number(f[key]) for key in ("MSE", "MAE")),
            )
        )
    return rows


def _columns(rows: Sequence[Sequence[str]]) -> str:
    width = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, width, strict=True))
        )
        for row in rows
    )


def _between(bounds: Sequence[float]) -> str:
    return f"[{number(bounds[0])}, {number(bounds[1])}]"
