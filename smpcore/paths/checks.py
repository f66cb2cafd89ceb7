"""Checks of arguments (a finite number, a whole number, a seed) for the rooms that draw or move inputs."""

import math
from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["MOST_PIXELS", "are_numbers", "generator", "image_size", "is_number", "is_whole"]

_LARGEST = 1e100
#: Pixels on a side of a picture that is drawn.
MOST_PIXELS = 1 << 14


def is_number(value: object, above: float = -math.inf) -> bool:
    """Whether it is one finite real number, larger than ``above`` (and not True or False).

    At most 1e100, and at least 1e-100 where it has to be positive: float64 holds the square of these, and its inverse.
    """
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return real and abs(value) <= _LARGEST and value > above and (above < 0 or value >= 1 / _LARGEST)


def is_whole(value: object, least: float = -math.inf) -> bool:
    """Whether it is a whole number of at least ``least`` (and not True or False)."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least


def are_numbers(values: object, count: int, above: float = -math.inf) -> bool:
    """Whether it is a sequence of ``count`` such numbers."""
    listed = isinstance(values, Sequence | np.ndarray) and not isinstance(values, str)
    return listed and len(values) == count and all(is_number(value, above) for value in values)


def image_size(size: object) -> tuple[int, int]:
    """(height, width) from one number of pixels or two; refused out of range, before memory is taken."""
    sides = (size, size) if is_whole(size) else size
    if not are_numbers(sides, 2) or not all(is_whole(side, 1) and side <= MOST_PIXELS for side in sides):
        raise ValueError(f"size = {sides!r}: it must be one or two whole numbers of pixels, from 1 to {MOST_PIXELS}")
    return int(sides[0]), int(sides[1])


def generator(seed: int) -> torch.Generator:
    """Random numbers on the CPU from a seed; refused if torch does not take it."""
    if not is_whole(seed) or not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed = {seed!r}: a whole number of at most 64 bits is needed")
    return torch.Generator().manual_seed(int(seed))
