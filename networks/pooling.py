"""Mean of a feature map over the units (spots, bins, cells) of an index mask."""

from __future__ import annotations

import torch

__all__ = ["pool_units", "unit_offsets"]


def unit_offsets(label: torch.Tensor) -> torch.Tensor:
    """Where the units of each (batch item, layer) start in the list of all units.

    Args:
        label: (B, L, H, W), integer; 0 is background, 1..n the units of that batch item and layer.

    Returns:
        int64 (B * L + 1,). The differences are the numbers of units; the last entry is their sum U.
    """
    counts = label.flatten(2).amax(2).clamp_min(0).flatten().long()
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def pool_units(features: torch.Tensor, label: torch.Tensor, stride: int) -> torch.Tensor:
    """Area-weighted mean of the map over each unit, as one sparse product (units x map pixels) @ (map pixels x C).

    A map pixel's weight is the number of the unit's image pixels in it. A unit of fewer than `stride`² image pixels is
    smaller than a map pixel. The function reads the map bilinearly at its centroid, so its value is an interpolation.

    Args:
        features: (B, C, h, w).
        label: (B, L, H, W), integer; 0 is background, 1..n the units of that batch item and layer, without gaps.
        stride: image pixels per map pixel; h = ceil(H / stride), w = ceil(W / stride).

    Returns:
        (U, C), ordered by (batch, layer, index), in float32 or the map's own precision if finer; differentiable in
        `features`.

    Raises:
        ValueError: if mask and map do not cover the same pixels, or the indices have a gap.
    """
    batch_size, channels, map_height, map_width = features.shape
    layers, height, width = label.shape[1:]
    if label.shape[0] != batch_size or (-(-height // stride), -(-width // stride)) != (map_height, map_width):
        raise ValueError(
            f"A mask of shape {tuple(label.shape)} does not lie on a map of shape {tuple(features.shape)} with "
            f"{stride} image pixels per map pixel: rasterise the units on the grid of the network's input image."
        )
    map_pixels = features.permute(0, 2, 3, 1).reshape(-1, channels)
    map_pixels = map_pixels.to(torch.promote_types(map_pixels.dtype, torch.float32))
    offsets = unit_offsets(label)
    n_units = int(offsets[-1])
    if n_units == 0:
        return map_pixels[:0]

    item, layer, row, col = torch.nonzero(label > 0, as_tuple=True)
    unit = offsets[item * layers + layer] + label[item, layer, row, col] - 1
    n_pixels = torch.bincount(unit, minlength=n_units)
    if not bool(n_pixels.all()):
        absent = int((n_pixels == 0).sum())
        raise ValueError(
            f"{absent} of {n_units} unit indices cover no pixel of the mask, so predictions and targets would not line "
            "up: number the units of each layer 1..n without gaps and drop those that lie outside."
        )

    is_small = n_pixels < stride**2
    in_large = ~is_small[unit]
    map_pixel = (item * map_height + row // stride) * map_width + col // stride
    entries = [(unit[in_large], map_pixel[in_large], (1 / n_pixels.double())[unit[in_large]])]
    if bool(is_small.any()):
        # One batch item per unit: the mean of a constant is that constant.
        y = _mean_by_unit(row + 0.5, unit, n_pixels)[is_small] / stride - 0.5
        x = _mean_by_unit(col + 0.5, unit, n_pixels)[is_small] / stride - 0.5
        item_of_small = _mean_by_unit(item, unit, n_pixels)[is_small].round().long()
        small = torch.nonzero(is_small).flatten()
        for corner_y in (0, 1):
            for corner_x in (0, 1):
                i, j = y.floor().long() + corner_y, x.floor().long() + corner_x
                weight = (1 - (y - i).abs()) * (1 - (x - j).abs())
                i, j = i.clamp(0, map_height - 1), j.clamp(0, map_width - 1)
                entries.append((small, (item_of_small * map_height + i) * map_width + j, weight))

    rows, cols, weights = (torch.cat(parts) for parts in zip(*entries, strict=True))
    shape = (n_units, map_pixels.shape[0])
    # Coalescing in float64 adds the image pixels of a map pixel exactly.
    matrix = torch.sparse_coo_tensor(torch.stack([rows, cols]), weights, shape, check_invariants=False).coalesce()
    with torch.autocast(map_pixels.device.type, enabled=False):  # else the backward product mixes precisions
        return torch.sparse.mm(matrix.to(map_pixels.dtype), map_pixels)


def _mean_by_unit(values: torch.Tensor, unit: torch.Tensor, n_pixels: torch.Tensor) -> torch.Tensor:
    return values.new_zeros(len(n_pixels), dtype=torch.float64).index_add(0, unit, values.double()) / n_pixels
