"""The eight flips and right-angle turns of a square."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

__all__ = ["SYMMETRIES", "average_over", "turn", "turn_back"]

#: Number k stands for k % 4 quarter turns, after a flip of the columns from 4 on; 0 changes nothing.
SYMMETRIES = tuple(range(8))


def turn(image: torch.Tensor, number: int) -> torch.Tensor:
    """(..., H, W) under symmetry `number`; H and W swap for odd numbers."""
    image = image.flip(-1) if number >= 4 else image
    return torch.rot90(image, number % 4, (-2, -1)) if number % 4 else image


def turn_back(image: torch.Tensor, number: int) -> torch.Tensor:
    """The inverse of `turn`."""
    image = torch.rot90(image, -(number % 4), (-2, -1)) if number % 4 else image
    return image.flip(-1) if number >= 4 else image


def average_over(
    numbers: Iterable[int], compute: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor
) -> torch.Tensor:
    """Mean of `compute`'s maps of the turned image, each turned back; one is held at a time."""
    first, *others = numbers
    total = turn_back(compute(turn(image, first)), first)
    for number in others:
        total = total + turn_back(compute(turn(image, number)), number)
    return total / (1 + len(others)) if others else total
