"""One file for each kind of input; importing them registers the kinds."""

from . import (
    arguments,
    audits,
    cells,
    cohorts,
    configs,
    datasets,
    labels,
    lists,
    maps,
    models,
    places,
    slides,
    sources,
    units,
    weights,
)

__all__ = [
    "arguments",
    "audits",
    "cells",
    "cohorts",
    "configs",
    "datasets",
    "labels",
    "lists",
    "maps",
    "models",
    "places",
    "slides",
    "sources",
    "units",
    "weights",
]
