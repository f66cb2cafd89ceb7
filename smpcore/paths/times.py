"""What a path is, and what all paths share: the check of the times, and constants on the times' device.

A path is any differentiable torch function of time, ``path(t: (P,)) -> (P, *input_shape)``. Slopes are taken
through it by forward-mode AD, so that a path of your own needs no derivative:

    def path(t):                        # two inputs a and b, mixed back and forth
        s = torch.sin(t)[:, None] ** 2
        return (1 - s) * a + s * b

A path that knows its slope may have a method ``slope(t: (P,)) -> (P, *input_shape)`` as well (`PathWithSlope`), which
gives dx/dt without AD: `line`, `circle`, `circle_through` and `through` have it.

The paths here are smooth (at least twice continuously differentiable), so that every kink of an output comes from the
network. Each computes in the type and on the device of ``t``; give float64, because in float32 the rounding errors of
``t`` alone look like kinks.

- `line`, `circle`, `circle_through`: straight and round, in the space of inputs.
- `through`: a smooth curve through inputs of your own, such as the frames of a video.
- `picture`: a crop that pans, zooms and turns over a photograph (`load_picture` reads one).
- `blob`, `ellipsoid`: synthetic scenes whose parameters are known, with `render_blobs`, `render_ellipsoids`.
"""

from typing import Protocol, runtime_checkable

import torch

__all__ = ["PathWithSlope", "path_times", "placed"]


@runtime_checkable
class PathWithSlope(Protocol):
    """A path that knows its slope, which then is not taken by forward-mode AD."""

    def __call__(self, t: torch.Tensor) -> torch.Tensor:
        """Inputs ``(P, *input_shape)`` at times ``(P,)``."""

    def slope(self, t: torch.Tensor) -> torch.Tensor:
        """dx/dt, ``(P, *input_shape)``; it has to agree with the path's own derivative."""


def path_times(t: torch.Tensor) -> torch.Tensor:
    """The times of a path, (P,) and floating, as they came.

    Raises
    ------
    TypeError
        For anything but a floating tensor.
    ValueError
        For a tensor that is not one-dimensional.
    """
    if not isinstance(t, torch.Tensor) or not t.is_floating_point():
        kind = f"a tensor of {t.dtype}" if isinstance(t, torch.Tensor) else type(t).__name__
        raise TypeError(f"the times of a path are a floating torch tensor (float64), not {kind}")
    if t.ndim != 1:
        raise ValueError(f"the times of a path have shape (P,), not {tuple(t.shape)}")
    return t


def placed(constant: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A path's constant in the type and on the device of the times; copied to a device once only."""
    if not isinstance(t, torch.Tensor) or (constant.dtype == t.dtype and constant.device == t.device):
        return constant
    kept = constant.__dict__.setdefault("_smpcore_placed", {})
    key = (t.dtype, t.device)
    if key not in kept:
        kept[key] = constant.to(dtype=t.dtype, device=t.device)
    return kept[key]
