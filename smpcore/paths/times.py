"""What every path shares: a check of its times, and constants moved to the type and device of the times."""

import torch

__all__ = ["path_times", "placed"]


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
