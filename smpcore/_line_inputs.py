"""The line that `trace_line` is given, checked: its ends, its length, and which end to read it from."""

import math

import torch
from torch import Tensor

__all__ = ["comes_later", "valid_ends", "valid_length"]


def valid_ends(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Two finite floating tensors of one shape, or a sentence."""
    for name, value in (("start", start), ("end", end)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}: give a torch tensor of the model's input "
                            "shape")
        if not value.is_floating_point():
            raise TypeError(f"{name} is of type {value.dtype}: a line needs floating numbers, so convert it "
                            "with .double()")
    if start.shape != end.shape:
        raise ValueError(f"start has shape {tuple(start.shape)} and end {tuple(end.shape)}: a line joins "
                         "two inputs of one shape")
    if start.device != end.device:
        raise ValueError(f"start is on {start.device} and end on {end.device}: move one to the other's "
                         "device")
    for name, value in (("start", start), ("end", end)):
        if not bool(torch.isfinite(value).all()):
            index = tuple((~torch.isfinite(value)).nonzero()[0].tolist())
            raise ValueError(f"{name} is NaN or infinite at index {index}: a line needs finite ends")
    return start, end


def valid_length(length: float) -> float:
    """A positive finite number, or a sentence."""
    if isinstance(length, bool) or not isinstance(length, int | float):
        raise TypeError(f"length = {length!r}: it must be a number, the line's length in units of t")
    if not (length > 0 and math.isfinite(length)):
        raise ValueError(f"length = {length!r}: it must be positive and finite, the line's length in units "
                         "of t")
    return float(length)


def comes_later(start: Tensor, end: Tensor) -> bool:
    """Whether the line is to be read from its end: where the two first differ, the smaller comes first."""
    differ = (start != end).flatten().nonzero()
    return bool(len(differ) and start.flatten()[differ[0, 0]] > end.flatten()[differ[0, 0]])

