"""Schemas of the JSON in a run folder."""

from __future__ import annotations

from typing import Any

__all__ = ["COUNT", "EVALUATION", "MODEL", "MPP", "PANEL", "POSITIVE", "REPORTED", "STANDARD_ERROR", "TRAINED"]

#: No number of ours is larger; JSON's 1e999 is read as infinite.
_LARGEST = 1e30
_NUMBER = {"type": "number", "minimum": -_LARGEST, "maximum": _LARGEST, "description": "a number"}
POSITIVE = {"type": "number", "exclusiveMinimum": 0, "maximum": _LARGEST, "description": "a number above 0"}
#: From what the finest scanners give to a pixel as large as a spot. Beyond, a network sees nothing of the
#: tissue, and memory grows with the square of a number that is too small.
MPP = {"type": "number", "minimum": 0.05, "maximum": 100, "description": "a number of µm per pixel from 0.05 to 100"}
COUNT = {"type": "integer", "minimum": 1, "maximum": _LARGEST, "description": "a whole number above 0"}
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
        "std": {"type": "array", "items": POSITIVE, "description": "a list of numbers above 0"},
        "depth_per_um2": _NUMBER,
        "unit_sizes_um": {
            "type": "array",
            "items": POSITIVE,
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
        "mpp": _or_worked_out(MPP),
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
                    "std": _three(POSITIVE, "a list of three numbers above 0"),
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
            "anyOf": [{"type": "array", "items": POSITIVE}, {"type": "null"}, _WORKED_OUT],
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
    "properties": {"target": _TEXT, "size_um": POSITIVE}
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
        "seen_patients": {"type": "array", "items": _TEXT, "description": "a list of patients"},
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
        "unit_size_um": POSITIVE,
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
