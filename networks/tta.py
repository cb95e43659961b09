"""Test-time augmentation: the mean over flips and right-angle turns of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

__all__ = ["FLIPS_AND_TURNS", "mean_over", "turn", "turn_back"]

#: The eight flips and right-angle turns of a square. Number k stands for k % 4 quarter turns, preceded from 4 on by a
#: flip of the columns; 0 changes nothing.
FLIPS_AND_TURNS = tuple(range(8))


def turn(image: torch.Tensor, number: int) -> torch.Tensor:
    """Flip and turn an image (..., H, W); H and W swap for odd numbers."""
    image = image.flip(-1) if number >= 4 else image
    return torch.rot90(image, number % 4, (-2, -1)) if number % 4 else image


def turn_back(image: torch.Tensor, number: int) -> torch.Tensor:
    """The inverse of `turn`."""
    image = torch.rot90(image, -(number % 4), (-2, -1)) if number % 4 else image
    return image.flip(-1) if number >= 4 else image


def mean_over(
    numbers: Iterable[int], compute: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor
) -> torch.Tensor:
    """Mean of the maps that `compute` gives for the turned images, each turned back. Holds one map at a time.

    Args:
        numbers: some of `FLIPS_AND_TURNS`, at least one.
        compute: (..., H, W) -> a map of it.
        image: (..., H, W).
    """
    first, *others = numbers
    total = turn_back(compute(turn(image, first)), first)
    for number in others:
        total = total + turn_back(compute(turn(image, number)), number)
    return total / (1 + len(others)) if others else total
