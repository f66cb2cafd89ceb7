"""One estimator for two kinds of arrays: numpy's on a CPU, where a call costs a tenth of torch's, and torch's on a GPU.

What both name alike is called through `namespace(array)` or as a method; the functions here cover the rest.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

__all__ = ["AT_ONCE", "Array", "by_portions", "correlate", "count", "lower_median", "namespace", "repeated",
           "true_places", "working"]

Array = Tensor | np.ndarray

# Samples worked on at a time: on a CPU they stay in its cache; on a GPU they keep it busy and bound the memory (about
# 100 bytes each).
AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 24}


def namespace(array: Array) -> ModuleType:
    """The module whose functions take this array."""
    return torch if isinstance(array, Tensor) else np


def working(values: Tensor) -> Array:
    """A tensor in float64, as an array of the kind that the estimator works on where the tensor is."""
    values = values.to(torch.float64).contiguous()
    return values.numpy() if values.device.type == "cpu" else values


def by_portions(work: Callable[[Array], tuple[Array, ...]], rows: Tensor) -> list[Tensor]:
    """``work`` on portions of the rows ``(B, N)``, each result ``(B,)``: on a CPU with as many threads as torch has."""
    portions = rows.split(max(1, AT_ONCE.get(rows.device.type, AT_ONCE["cpu"]) // rows.shape[1]))
    threads = min(len(portions), torch.get_num_threads()) if rows.device.type == "cpu" else 1
    with ThreadPoolExecutor(threads) as pool:
        results = list((pool.map if threads > 1 else map)(lambda part: work(working(part)), portions))
    return [torch.as_tensor(namespace(columns[0]).concatenate(columns)) for columns in zip(*results, strict=True)]


def true_places(mask: Array) -> Array:
    """Flat indices at which a mask is true, ascending."""
    places = mask.reshape(-1).nonzero()
    return places[:, 0] if isinstance(mask, Tensor) else places[0]


def count(number: int, like: Array) -> Array:
    """The integers from 0, where the other array is."""
    return torch.arange(number, device=like.device) if isinstance(like, Tensor) else np.arange(number)


def repeated(values: Array, times: Array | int) -> Array:
    """Each value as many times."""
    return torch.repeat_interleave(values, times) if isinstance(values, Tensor) else np.repeat(values, times)


def correlate(values: Array, taps: list[float]) -> Array:
    """Σ taps[k] values[n + k − (number of taps − 1)/2] for each n, values beyond the ends 0."""
    if not isinstance(values, Tensor):
        return np.correlate(values, taps, "same")
    padded = torch.nn.functional.pad(values, 2 * (len(taps) // 2,))
    return sum(tap * padded[k:k + len(values)] for k, tap in enumerate(taps))


def lower_median(magnitudes: Array) -> Array:
    """The (lower) median of each row, ``(B, n) -> (B,)``."""
    middle = (magnitudes.shape[1] - 1) // 2
    if isinstance(magnitudes, Tensor):
        return magnitudes.kthvalue(middle + 1, dim=1).values
    return np.partition(magnitudes, middle, axis=1)[:, middle].copy()
