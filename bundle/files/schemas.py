"""Schemas of the JSON in a run folder, and the sentence for what does not agree with one."""

from __future__ import annotations

import json
from typing import Any

from ..errors import InputError

__all__ = ["EVALUATION", "MODEL", "PANEL", "REPORTED", "STANDARD_ERROR", "TRAINED", "check"]

#: No number of ours is larger; JSON's 1e999 is read as infinite.
_LARGEST = 1e30
_NUMBER = {"type": "number", "minimum": -_LARGEST, "maximum": _LARGEST, "description": "a number"}
_POSITIVE = {"type": "number", "exclusiveMinimum": 0, "maximum": _LARGEST, "description": "a number above 0"}
#: From what the finest scanners give to a pixel as large as a spot. Beyond, a network sees nothing of the
#: tissue, and memory grows with the square of a number that is too small.
_MPP = {"type": "number", "minimum": 0.05, "maximum": 100, "description": "a number of µm per pixel from 0.05 to 100"}
_TEXT = {"type": "string", "description": "text"}
_NAME = {"type": "string", "pattern": r"^[^\x00-\x1f\x7f]+$", "description": "a name"}
_GENES = {"type": "array", "items": _NAME, "description": "a list of genes' names"}
#: What MONAI works out when a configuration runs; whether that is allowed is another question (`trust`).
_WORKED_OUT = {"type": "string", "pattern": "^[$@%]"}


def _or_worked_out(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, _WORKED_OUT], "description": schema["description"]}


def _three(value: dict[str, Any], description: str) -> dict[str, Any]:
    schema = {"type": "array", "items": value, "minItems": 3, "maxItems": 3, "description": description}
    return _or_worked_out(schema)


#: `models/panel.json`.
PANEL: dict[str, Any] = {
    "type": "object",
    "description": "keys and values",
    "required": ["genes", "panels", "mean", "std", "depth_per_um2", "unit_sizes_um", "min_total", "training"],
    "properties": {
        "genes": _GENES | {"minItems": 1},
        "panels": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": _GENES,
            "description": "named lists of genes",
        },
        "mean": {"type": "array", "items": _NUMBER, "description": "a list of numbers"},
        "std": {"type": "array", "items": _POSITIVE, "description": "a list of numbers above 0"},
        "depth_per_um2": _NUMBER,
        "unit_sizes_um": {
            "type": "array",
            "items": _POSITIVE,
            "minItems": 1,
            "description": "a list of numbers above 0",
        },
        "min_total": _NUMBER,
        "training": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["section", "patient"],
                "properties": {"section": _TEXT, "patient": _TEXT},
                "description": "a slide's section and patient",
            },
            "description": "a list of slides",
        },
        "split_by": _TEXT,
        "transcriptome": _TEXT,
        "stain": {
            "type": "array",
            "items": {"type": "array", "items": _NUMBER, "description": "a list of numbers"},
            "description": "a list of each slide's stain",
        },
    },
}
#: What `configs/model.json` says of a network, as a part of a configuration.
MODEL: dict[str, Any] = {
    "type": "object",
    "description": "keys and values",
    "properties": {
        "mpp": _or_worked_out(_MPP),
        "head": _TEXT,
        "network_def": _or_worked_out(
            {
                "type": "object",
                "required": ["_target_"],
                "properties": {"_target_": _TEXT, "_disabled_": {"const": False, "description": "false"}},
                "description": "a network, with its class in _target_",
            }
        ),
        "intensity": _or_worked_out(
            {
                "type": "object",
                "required": ["mean", "std"],
                "properties": {
                    "mean": _three(_NUMBER, "a list of three numbers"),
                    "std": _three(_POSITIVE, "a list of three numbers above 0"),
                },
                "description": "mean and std, three numbers each",
            }
        ),
    },
}
#: `configs/train.json`, as far as later commands go by it.
TRAINED: dict[str, Any] = {
    "type": "object",
    "description": "keys and values",
    "required": ["dataset_dir"],
    "properties": {
        "dataset_dir": _TEXT,
        "unit_sizes_um": {
            "anyOf": [{"type": "array", "items": _POSITIVE}, {"type": "null"}, _WORKED_OUT],
            "description": "a list of numbers above 0",
        },
    },
}
_FIGURE = {"type": ["number", "null"], "description": "a number, or null"}
_WHOLE = {"type": "integer", "minimum": 0, "description": "a whole number"}
#: What was measured at one scale, of all slides or of one.
_FIGURES: dict[str, Any] = {
    "type": "object",
    "description": "figures by their names",
    "required": [
        *("target", "size_um", "units", "slides", "constant_genes", "filtered_units"),
        *("PCC@F", "PCC@S", "PCC@M", "PCC@M_pooled", "PCC@M_residual", "ceiling@M", "MSE", "MAE"),
    ],
    "properties": {"target": _TEXT, "size_um": _POSITIVE}
    | dict.fromkeys(("units", "slides", "constant_genes", "filtered_units"), _WHOLE),
    "patternProperties": {"^(PCC|ceiling|MSE|MAE|deviance)": _FIGURE},
}
_SCALES: dict[str, Any] = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": _FIGURES,
    "description": "figures of one scale or more",
}
#: `evaluation/<name>.json` as the report shows it.
REPORTED: dict[str, Any] = {
    "type": "object",
    "description": "keys and values",
    "required": ["panel", "genes", "scales"],
    "properties": {
        "split": _TEXT,
        "panel": _TEXT,
        "genes": _WHOLE,
        "patients": _WHOLE,
        "min_total": _NUMBER,
        "scales": _SCALES,
        "per_slide": {"type": "object", "additionalProperties": _SCALES, "description": "slides and their figures"},
    },
}
_FACTOR = {"type": ["number", "null"], "minimum": 0, "maximum": _LARGEST, "description": "a number, or null"}
#: `evaluation/standard_error.json`.
STANDARD_ERROR: dict[str, Any] = {
    "type": "object",
    "description": "keys and values",
    "required": ["checkpoint_sha256", "slides", "factor", "unit_size_um"],
    "additionalProperties": False,
    "properties": {
        "checkpoint_sha256": _TEXT,
        "members": _WHOLE,
        "slides": {"type": "array", "items": _NAME, "minItems": 1, "description": "a list of slides' names"},
        "factor": {"type": "object", "additionalProperties": _FACTOR, "description": "genes and their factors"},
        "unit_size_um": _POSITIVE,
        "coverage_95": _FIGURE,
        "ranking": _FIGURE,
    },
}
#: `evaluation/<name>.json`, as far as predictions repeat it.
EVALUATION: dict[str, Any] = {
    "type": "object",
    "description": "keys and values",
    "required": ["patients", "same_patient"],
    "properties": {
        "patients": _WHOLE,
        "same_patient": {"type": "boolean", "description": "true or false"},
    },
}


def check(content: Any, schema: dict[str, Any], where: str) -> None:
    """Refuse content that is not as a schema says.

    Args:
        content: of the file, or what was merged from several.
        schema: JSON Schema, whose every part has a `description` that ends "it must be ...".
        where: the file, for the sentence.

    Raises:
        InputError: that names the first such place.
    """
    from jsonschema import Draft202012Validator

    error = next(Draft202012Validator(schema).iter_errors(content), None)
    if error is None:
        return
    described = error.schema.get("description", "something else")
    while error.validator == "anyOf" and error.context:  # what was wrong with the first of the forms
        error = next(part for part in error.context if part.relative_schema_path[0] == 0)
        described = error.schema.get("description", described)
    place = "#".join(map(str, error.absolute_path))
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        raise InputError(f'{where} lacks "{f"{place}#{missing}" if place else missing}". Copy it again.')
    shown = json.dumps(error.instance, default=str)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    what = f'"{place}" is {shown}' if place else f"it holds {shown}"
    raise InputError(f"{where}: {what}; it must be {described}.")
