"""Batches of crops and of slides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["collate_units", "take_one"]


def collate_units(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Batch samples: images and masks are stacked, units concatenated with `unit_batch` saying whose they are.

    `unit_group` numbers slide and unit size, so that two crops of one slide share their Pearson term.
    """
    n_layers = max(s["label"].shape[0] for s in samples)
    labels = []
    for sample in samples:
        label = torch.as_tensor(sample["label"]).as_subclass(torch.Tensor)
        missing = torch.zeros((n_layers - label.shape[0], *label.shape[1:]), dtype=label.dtype)
        labels.append(torch.cat([label, missing]))
    batch: dict[str, Any] = {
        "image": torch.stack([torch.as_tensor(s["image"]).as_subclass(torch.Tensor) for s in samples]),
        "label": torch.stack(labels),
    }
    for key in ("target", "total", "size_factor", "normalised", "area_um2", "unit_layer", "unit_size", "unit_index"):
        if key in samples[0]:
            batch[key] = torch.cat([torch.as_tensor(s[key]) for s in samples])
    batch["unit_batch"] = torch.cat([torch.full((len(s["total"]),), i) for i, s in enumerate(samples)])
    slide = torch.cat([torch.full((len(s["total"]),), int(s["slide_index"])) for s in samples])
    size = batch.get("unit_size", batch["unit_layer"])
    batch["unit_group"] = slide * (int(size.amax()) + 1 if len(size) else 1) + size
    return batch


def take_one(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collate for loaders of whole slides: one slide is one iteration."""
    (sample,) = samples
    return sample
