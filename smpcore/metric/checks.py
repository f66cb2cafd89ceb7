"""Checks of the metric's arguments: signals become tensors, and each wrong argument gets a sentence of its own."""

import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from smpcore.arguments import device as devices
from smpcore.metric.arrays import Array, namespace

__all__ = ["as_tensor", "check", "check_samples", "check_spacing", "is_number", "largest", "needed",
           "scaled"]

# Powers of 2 up to this have squares, and sums of squares, within the range of float64.
_LARGE = 400


def as_tensor(signal: Tensor | np.ndarray) -> tuple[Tensor, Callable[[Tensor], Tensor | np.ndarray]]:
    """A tensor without its graph, and a function that turns a result into the kind that came in."""
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
    if values.dtype == torch.bool:
        raise TypeError("a signal is real numbers, not booleans")
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
    if array.dtype.kind not in "fiuc":
        raise TypeError(f"a signal is real numbers, a tensor or an array, not {_named(signal, array)}")
    return array


def _held(given: Tensor | np.ndarray, kind: object) -> Tensor | np.ndarray:
    """The result, refused where its type cannot hold it."""
    if not torch.isfinite(torch.as_tensor(given)).all():
        raise ValueError(f"the sum is larger than {kind} holds: pass the signal as float64, or divide it first")
    return given


def _named(signal: object, array: np.ndarray) -> str:
    if array.dtype.kind in "USb":
        return "booleans" if array.dtype.kind == "b" else "strings"
    return "an array of objects" if isinstance(signal, np.ndarray) else type(signal).__name__


def scaled(rows: Array) -> tuple[Array, Array, Array]:
    """Rows in float64, those of which a square would leave its range divided by a power of 2; their largest magnitudes;
    and the powers."""
    xp, size = namespace(rows), largest(rows)
    unit = xp.frexp(size)[1]
    unit = xp.where(abs(unit) > _LARGE, unit, 0)
    if unit.any():  # In two steps, for the power itself may lie out of range.
        rows = xp.ldexp(xp.ldexp(rows, -unit[:, None] // 2), -unit[:, None] - -unit[:, None] // 2)
        size = largest(rows)
    return rows, size, unit


def largest(rows: Array) -> Array:
    """The largest magnitude of each row."""
    xp = namespace(rows)
    return xp.maximum(xp.amax(rows, 1), -xp.amin(rows, 1))  # several times as fast as aminmax along a dimension


def needed(lag: int, window: int) -> int:
    """Samples that give ``window + 7`` averages in every phase: with fewer, kinks in many places are not found."""
    return lag * (window + 7) + lag - 1


def check_spacing(spacing: float, name: str = "spacing") -> None:
    """Refuse a distance in time that is not a positive number."""
    if not is_number(spacing) or not 0 < spacing <= sys.float_info.max:
        raise ValueError(f"{name} = {spacing!r}: the distance between samples has to be a positive number")


def check_samples(values: Tensor, least: int, purpose: str) -> None:
    """Refuse a signal with fewer samples than ``purpose`` needs, and NaN or infinity (the first index is named)."""
    if values.dim() == 0:
        raise ValueError("a signal has samples in its last dimension: this is a single number")
    if values.shape[-1] < least:
        raise ValueError(f"a signal of {values.shape[-1]} samples is too short for {purpose}: at least {least} are "
                         "needed")
    # With a NaN or an infinity in the signal the sum is not finite either, and it is much quicker to check.
    if not torch.isfinite(values.sum()) and (bad := ~torch.isfinite(values)).any():
        index = tuple(int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"the signal is {float(values[index])} at index {index if len(index) > 1 else index[0]}: cut "
            "such samples out or fill them in first")


def check(values: Tensor, spacing: float, lag: int | str, window: int, threshold: float) -> None:
    """Refuse what `smpcore.smp` cannot read; the parameters are its own."""
    check_spacing(spacing)
    if not (isinstance(lag, str) and lag == "auto") and (not _is_integer(lag) or lag < 1):
        raise ValueError(f"lag = {lag!r}: 'auto' or a whole number of samples, at least 1, is needed")
    if not _is_integer(window) or window < 7 or window % 2 == 0:
        raise ValueError(f"window = {window!r}: an odd number of samples, at least 7, is needed")
    if not is_number(threshold) or not 0 <= threshold <= sys.float_info.max:
        raise ValueError(f"threshold = {threshold!r}: a number of deviations, not negative, is needed")
    check_samples(values, needed(1 if lag == "auto" else lag, window), f"lag {lag} and window {window}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is one real number, in Python, numpy or torch, and no boolean."""
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim == 0 and not (value.is_complex() if isinstance(value, Tensor) else value.dtype.kind == "c")
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
