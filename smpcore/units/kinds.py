"""The three ways in which a unit can switch."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Hinge", "Hinges", "Selection", "Steps", "moves"]


class Hinge(NamedTuple):
    """One threshold of an elementwise unit.

    Attributes
    ----------
    at
        The input at which the unit switches: a number, or a tensor that broadcasts to the input.
    below, above
        The unit's derivative with respect to its input on either side, at the threshold.
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
        The tensor that crosses the thresholds.
    hinges
        The thresholds, in increasing order; none for a smooth unit.
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

    @property
    def jumps(self) -> bool:
        """Whether the value jumps at some threshold."""
        return any(bool(torch.as_tensor(hinge.step != 0).any()) for hinge in self.hinges)

    def derivative(self, x: Tensor) -> Tensor:
        """The unit's derivative at ``x``, of the input's shape: by its hinges, or by differentiating ``output``."""
        if not (self.straight and self.hinges):
            with torch.enable_grad():
                inside = x.detach().requires_grad_()
                return torch.autograd.grad(self.output(inside).sum(), inside)[0]
        # In x's own type at once: a Python number would pass through float32.
        found = torch.as_tensor(self.hinges[0].below, dtype=x.dtype, device=x.device)
        for hinge in self.hinges:
            found = torch.where(x > hinge.at, torch.as_tensor(hinge.above, dtype=x.dtype, device=x.device), found)
        return found


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
    best
        From ``(n, places)`` to the largest value in each window and its place, ``(n, windows)`` each.
    windows
        ``windows()`` gives the places in each window, ``(windows, k)``, -1 where a window hangs over the edge.
    """

    kind: str
    inputs: tuple[Tensor, ...]
    sign: int
    source: Callable[..., Tensor]
    output: Callable[..., tuple[Tensor, Tensor]]
    arrange: Callable[[Tensor, Tensor], object]
    best: Callable[[Tensor], tuple[Tensor, Tensor]]
    windows: Callable[[], Tensor]

    #: Whether the value jumps: never.
    jumps = False

    def rows(self, parts: list[Tensor]) -> Tensor:
        """The sources of n calls at once: from inputs ``(n, *shape)`` each to ``(n * rows, places)``."""
        most = max(x.dim() for x in self.inputs)
        aligned = [part.reshape(len(part), *[1] * (most - x.dim()), *part.shape[1:])
                   for part, x in zip(parts, self.inputs, strict=True)]
        return self.source(*aligned).flatten(0, -2)


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

    #: Whether the value jumps: always.
    jumps = True


def moves(tensor: Tensor) -> bool:
    """Whether a tensor carries a tangent: whether it depends on the path."""
    return torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None
