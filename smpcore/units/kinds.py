"""The three ways in which a unit can switch, and the table that units are entered in."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["TABLE", "Hinge", "Hinges", "Selection", "Steps", "entry", "moves"]


class Hinge(NamedTuple):
    """One threshold of an elementwise unit.

    Attributes
    ----------
    at
        Where its input switches it: a number, or a tensor that broadcasts to the input.
    below, above
        The unit's slope with respect to its input on either side, at the threshold.
    step
        Its value just above minus its value just below: 0 for a kink.
    """

    at: float | Tensor
    below: float | Tensor
    above: float | Tensor
    step: float | Tensor = 0.0


class Hinges(NamedTuple):
    """An elementwise unit.

    Attributes
    ----------
    kind
        In words.
    input
        What crosses the thresholds.
    hinges
        The thresholds.
    output
        Computes the unit's output, out of place: ``output(input)``.
    straight
        Whether the unit is affine between its thresholds.
    """

    kind: str
    input: Tensor
    hinges: tuple[Hinge, ...]
    output: Callable[[Tensor], Tensor]
    straight: bool = True

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (self.input,)


class Selection(NamedTuple):
    """The largest, or smallest, of several candidates.

    Attributes
    ----------
    kind
        In words.
    inputs
        The tensors that the candidates come from.
    sign
        1 for the largest, -1 for the smallest.
    source
        From the inputs to ``(*rows, places)``: windows select among the places of their own row.
    output
        From the inputs to the selected values and their place, ``(*rows, windows)`` in any shape that flattens
        to it.
    arrange
        From (values, places) to what the call returns.
    """

    kind: str
    inputs: tuple[Tensor, ...]
    sign: int
    source: Callable[..., Tensor]
    output: Callable[..., tuple[Tensor, Tensor]]
    arrange: Callable[[Tensor, Tensor], object]


class Steps(NamedTuple):
    """An elementwise unit whose value jumps.

    Attributes
    ----------
    kind
        In words.
    input
        Its input.
    level
        The piecewise-constant part of the output: ``level(input)``.
    output
        Computes the unit's output, out of place.
    """

    kind: str
    input: Tensor
    level: Callable[[Tensor], Tensor]
    output: Callable[[Tensor], Tensor]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (self.input,)


TABLE: dict[str, Callable] = {}


def entry(function: Callable) -> Callable:
    """Enter a function in the table, under its own name."""
    TABLE[function.__name__.strip("_")] = function
    return function


def moves(tensor: Tensor) -> bool:
    """Whether a tensor carries a tangent: whether it depends on the path."""
    return torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None
