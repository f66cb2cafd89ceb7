"""One layer's part in a prediction: forward the second moments, backward the squared gains, its own kinks."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from smpcore.propagation.random_weights.second_moments import Field

__all__ = ["Stage"]


@dataclass(frozen=True)
class Stage:
    """What a step does.

    Attributes
    ----------
    field
        Behind it.
    pull
        From the mean squared gains ``(R, P, N[, N])`` behind it to those before it, one for each input; a pair of them
        where units have another gain at their kinks.
    rates
        Triples (which step's, at which step the gain, Σ|jump of the unit's own slope| and the number of jumps per
        unit of t ``(2, R, P, N)``).
    at_kink
        Of a unit like ReLU whose gains are drawn: of which draws ``(R, P, M, N)`` the gain at its kinks is that. Its
        output is 0 there as at a kink, so that a sum behind it is what its other side makes of it.
    """

    field: Field
    pull: Callable[[Tensor], list[Tensor]]
    rates: tuple = ()
    at_kink: Tensor | None = None
