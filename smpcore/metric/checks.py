"""What comes into the metric: a tensor or an array made a tensor, and everything that it refuses."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from smpcore import device as devices

__all__ = ["as_tensor", "check", "needed"]


def as_tensor(signal: Tensor | np.ndarray) -> tuple[Tensor, Callable[[Tensor], Tensor | np.ndarray]]:
    """A tensor without its graph, and what turns a result into the kind that came in."""
    if isinstance(signal, Tensor):
        if signal.layout != torch.strided:
            raise TypeError("a signal is a dense tensor, not a sparse one: call its to_dense() first")
        values = signal.detach()
        kind = values.dtype if values.is_floating_point() else torch.float64

        def give_back(result: Tensor) -> Tensor:
            return _held(result.to(kind), kind)
    else:
        array = _as_array(signal)
        # Half, single and double precision; anything longer is measured in double.
        single = array.dtype.kind == "f" and array.dtype.itemsize <= 8
        kind = array.dtype.newbyteorder("=") if single else np.dtype(np.float64)
        # A copy where torch could not share it: read-only, or with its bytes the other way round.
        values = torch.from_numpy(np.require(array, kind if array.dtype.kind != "c" else None, ["C", "W"]))

        def give_back(result: Tensor) -> np.ndarray:
            with np.errstate(over="ignore"):
                return _held(result.numpy().astype(kind, copy=False), kind)
    if values.is_complex():
        raise TypeError("a signal is real numbers, not complex ones: take its real part, imaginary part or "
                        "magnitude")
    devices.resolve(values.device)
    if not values.is_floating_point():
        values = values.to(torch.float64)
    return values, give_back


def _as_array(signal: object) -> np.ndarray:
    if isinstance(signal, np.ma.MaskedArray) and np.ma.is_masked(signal):
        raise ValueError("the signal has masked samples: cut them out or fill them in first")
    try:
        array = np.asarray(signal)
    except ValueError as error:
        raise TypeError(f"a signal is an array of one shape, and this {type(signal).__name__} is none: {error}") \
            from error
    if array.ndim == 0 and array.dtype.kind in "fiub":
        raise ValueError("a signal has samples in its last dimension: this is a single number")
    if array.dtype.kind not in "fiubc":
        raise TypeError(f"a signal is real numbers, a tensor or an array, not {_named(signal, array)}")
    return array


def _held(given: Tensor | np.ndarray, kind: object) -> Tensor | np.ndarray:
    """A result in the kind that came in, refused where that does not hold it."""
    if not torch.isfinite(torch.as_tensor(given)).all():
        raise ValueError(f"the sum is larger than {kind} holds: pass the signal as float64, or divide it first")
    return given


def _named(signal: object, array: np.ndarray) -> str:
    if array.dtype.kind in "US":
        return "strings"
    return "an array of objects" if isinstance(signal, np.ndarray) else type(signal).__name__


def needed(lag: int, window: int) -> int:
    """Samples for ``window + 7`` averaged ones in every phase, the fewest in which a kink is read almost anywhere."""
    return lag * (window + 7) + lag - 1


def check(values: Tensor, spacing: float, lag: int | str, window: int, threshold: float) -> None:
    """Refuse what cannot be read, each in a sentence; the parameters are those of `smpcore.smp`."""
    if not _is_number(spacing) or not (math.isfinite(spacing) and spacing > 0):
        raise ValueError(f"spacing = {spacing!r}: the distance between samples has to be a positive number")
    if not (isinstance(lag, str) and lag == "auto") and (not _is_integer(lag) or lag < 1):
        raise ValueError(f"lag = {lag!r}: 'auto' or a whole number of samples, at least 1, is needed")
    if not _is_integer(window) or window < 7 or window % 2 == 0:
        raise ValueError(f"window = {window!r}: an odd number of samples, at least 7, is needed")
    if not _is_number(threshold) or not (math.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"threshold = {threshold!r}: a number of deviations, not negative, is needed")
    if values.dim() == 0:
        raise ValueError("a signal has samples in its last dimension: this is a single number")
    least = needed(1 if lag == "auto" else lag, window)
    if values.shape[-1] < least:
        raise ValueError(
            f"a signal of {values.shape[-1]} samples is too short for lag {lag} and window {window}: at "
            f"least {least} are needed")
    # A NaN or an infinity is still there in the sum, which is much quicker to look at.
    if not torch.isfinite(values.sum()) and (bad := ~torch.isfinite(values)).any():
        index = tuple(int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"the signal is {float(values[index])} at index {index if len(index) > 1 else index[0]}: cut "
            "such samples out or fill them in first")


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim == 0 and not (value.is_complex() if isinstance(value, Tensor) else value.dtype.kind == "c")
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
