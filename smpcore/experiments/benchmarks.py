"""Benchmarks: alternatives to the measurements, and functions that measure time and memory.

None of this is needed to measure SMP; notebook 90 imports it. Each alternative is written once, as fast as plain torch
allows, and tested against known results.
"""

import gc
import time
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smpcore.arguments import FUNCTION, POSITIVE, TENSOR, TIMES, Kind, checked, whole
from smpcore.experiments.sequential_reference import SEQUENCE, LineKinks, slopes, transform_line

__all__ = ["LineKinks", "forward_pass", "in_turns", "peak_bytes", "rms_error", "sampled_slopes", "samples_needed",
           "scipy_composition", "transform_line"]


_NUMBERS = Kind(object, ": it must be a list of finite numbers",
                lambda given: np.ndim(given) == 1 and np.isfinite(np.asarray(given, float)).all())


@checked(repeats=whole()._replace(broken=": at least one round has to be counted"), work=Kind(
    dict, ": it must be a dictionary of functions", lambda work: all(map(callable, work.values()))))
def in_turns(work: dict[str, Callable[[], object]], repeats: int = 3, *, warm: bool = False) -> dict[str, float]:
    """Seconds that each piece of work takes, measured alternately so that changes of the machine's speed affect all.

    Parameters
    ----------
    work
        Named callables.
    repeats
        Counted rounds, at least 1; in every round each callable runs once.
    warm
        Whether all have run before. If not, each is called once before the counted rounds, so that caches and
        lazy initialisation are not counted.

    Returns
    -------
    dict
        The fastest of each one's rounds: other programs only ever make a round slower.

    Raises
    ------
    TypeError, ValueError
        For work that is not a dictionary of functions, fewer than one round.
    """
    seconds = dict.fromkeys(work, float("inf"))
    for counted in range(1 if warm else 0, repeats + 1):
        for name, call in work.items():
            _wait()
            begin = time.perf_counter()
            call()
            _wait()
            if counted:
                seconds[name] = min(seconds[name], time.perf_counter() - begin)
    return seconds


@checked(model=SEQUENCE, start=TENSOR, end=TENSOR, samples=whole(2), chunk=whole())
def sampled_slopes(model: nn.Sequential, start: Tensor, end: Tensor, samples: int, chunk: int = 64) -> Tensor:
    """Slopes of the first output at equally spaced points of the line, length 1.

    Parameters
    ----------
    model
        As for `transform_line`.
    start, end
        The line's ends, ``(*input_shape)``.
    samples
        Points on it, at least 2.
    chunk
        Points in one forward pass.

    Returns
    -------
    Tensor
        ``(samples,)``, output units per unit of the line.

    Raises
    ------
    TypeError, ValueError
        As `transform_line`; for fewer than 2 samples, or none in a pass.
    """
    times = torch.linspace(0, 1, samples, dtype=start.dtype, device=start.device)
    with torch.no_grad():
        return torch.cat([slopes(model, start, end, part) for part in times.split(chunk)])


@checked(model=FUNCTION, path=FUNCTION, times=TIMES, chunk=whole())
def forward_pass(model: nn.Module, path: Callable[[Tensor], Tensor], times: Tensor, chunk: int = 64) -> Tensor:
    """The model's outputs ``(P, m)`` along a path, without slopes: the unit in which other costs are given.

    Raises
    ------
    TypeError, ValueError
        For a model or a path that cannot be called, times that are not a tensor (P,), a chunk under 1.
    """
    with torch.no_grad():
        return torch.cat([model(path(part)) for part in times.split(chunk)])


@checked(spacing=POSITIVE, window=whole(), threshold=POSITIVE, values=Kind(
    np.ndarray, ": it must be an array of numbers (S, N) with at least 4 samples",
    lambda values: values.ndim == 2 and values.shape[1] > 3 and values.dtype.kind in "iuf"))
def scipy_composition(values: np.ndarray, spacing: float, window: int = 9, threshold: float = 5.0) -> np.ndarray:
    """SMP as a few calls of SciPy: the plain estimator that `smpcore.smp` is compared with.

    Residual of a running median, neighbours added in pairs, local maxima over a multiple of the deviation. It does
    less than `smp`: it fits no background, does not separate overlapping kinks, and does not treat noise.

    Parameters
    ----------
    values
        Signals ``(S, N)``.
    spacing
        Time between two samples.
    window
        Of the running median, in samples.
    threshold
        In robust standard deviations, 1.4826 times the median absolute residual.

    Returns
    -------
    numpy.ndarray
        ``(S,)`` in signal units per unit of time.

    Raises
    ------
    TypeError, ValueError
        For values of another shape or type; a spacing or a threshold that is not positive, a window under 1.
    """
    from scipy.ndimage import maximum_filter, median_filter

    second = np.diff(values, 2) / spacing
    residual = second - median_filter(second, size=(1, window))
    deviation = 1.4826 * np.median(np.abs(residual), axis=-1, keepdims=True)
    pairs = np.abs(residual[:, 1:] + residual[:, :-1])
    peaks = (pairs == maximum_filter(pairs, size=(1, 3))) & (pairs > threshold * deviation)
    return np.where(peaks, pairs, 0).sum(-1)


@checked(readings=_NUMBERS, truths=_NUMBERS)
def rms_error(readings: Sequence[float], truths: Sequence[float]) -> float:
    """Root mean square of the relative errors, 0.01 for one per cent.

    Parameters
    ----------
    readings, truths
        One for each line, the truths not 0.

    Raises
    ------
    ValueError
        For lists of different lengths, no lines, a truth of 0.
    """
    readings, truths = np.asarray(readings, dtype=float), np.asarray(truths, dtype=float)
    if len(readings) != len(truths) or not len(truths) or not truths.all():
        raise ValueError(f"{len(readings)} readings and {len(truths)} truths: one truth other than 0 for each reading")
    return float(np.sqrt(np.mean((readings / truths - 1) ** 2)))


@checked(target=POSITIVE, samples=_NUMBERS, errors=_NUMBERS)
def samples_needed(samples: Sequence[int], errors: Sequence[float], target: float = 0.01) -> tuple[float, bool]:
    """From how many samples on an error stays at or below a target, and whether that is an extrapolation.

    Between two sizes that were measured, the error is taken to be a power of the number of samples. Beyond the
    last it is taken to fall as 1/samples: two kinks share an interval, and cancel in part, with a probability in
    proportion to its length. While intervals still hold several kinks the error falls more slowly, so that the
    extrapolation is a lower bound.

    Parameters
    ----------
    samples
        Increasing.
    errors
        One for each, above 0.
    target
        The error wanted.

    Returns
    -------
    needed : float
        The number of samples; the first size, if that was enough already.
    extrapolated : bool
        Whether none of the sizes was enough.

    Raises
    ------
    ValueError
        For lists of different lengths or no sizes, sizes that do not increase, errors or a target of 0 or less.
    """
    if (len(samples) != len(errors) or not len(samples) or not (np.diff(samples, prepend=0) > 0).all()
            or not min(errors) > 0):
        raise ValueError(f"{len(samples)} sizes and {len(errors)} errors: one error for each of at least one size, the "
                         "sizes increasing, the errors above 0")
    above = [place for place, error in enumerate(errors) if error > target]
    if not above:
        return float(samples[0]), False
    last = above[-1]
    if last == len(samples) - 1:
        return samples[last] * errors[last] / target, True
    power = np.log(errors[last + 1] / errors[last]) / np.log(samples[last + 1] / samples[last])
    return float(samples[last] * (target / errors[last]) ** (1 / power)), False


@checked(call=FUNCTION)
def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes of tensors that exist at once while ``call`` runs, beyond those that existed before it.

    The storages of the results of all operations are counted, in the same way on every device; memory that an
    operation uses internally is not counted. A ValueError for what is not a function.
    """
    gc.collect()
    with _Live() as live:
        call()
    return live.most


class _Live(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = {part.untyped_storage()._cdata for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)}
        result = func(*args, **kwargs)
        for part in tree_leaves(result):
            if isinstance(part, Tensor) and part.untyped_storage()._cdata not in given | self.known:
                storage = part.untyped_storage()
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return result

    def _gone(self, key, size):
        self.known.discard(key)
        self.now -= size


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
