"""A smooth path through inputs of one's own: the frames of a video, the states of a log."""

import functools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from smpcore.paths.lines import _inputs
from smpcore.paths.photographs import load_picture
from smpcore.paths.times import path_times, placed

__all__ = ["SplinePath", "through"]

#: Intervals that are evaluated together, and inputs beside them that are used: farther ones have weights under
#: 0.27^32 = 1e-18 where times are even, and 2^-32 wherever.
_BLOCK, _REACH = 32, 32


@dataclass(frozen=True)
class SplinePath:
    """The cubic spline through inputs at given times; see `through`."""

    inputs: Sequence
    knots: np.ndarray
    periodic: bool
    _held: OrderedDict = field(default_factory=OrderedDict, repr=False, compare=False)

    def __call__(self, t: torch.Tensor) -> torch.Tensor:
        return self._at(t, lambda s, a, b, c, d: ((a * s + b) * s + c) * s + d)

    def slope(self, t: torch.Tensor) -> torch.Tensor:
        """dx/dt, ``(P, *input_shape)``: the same as forward-mode AD gives, in less time."""
        return self._at(t, lambda s, a, b, c, d: (3 * a * s + 2 * b) * s + c)

    def _at(self, t: torch.Tensor, cubic) -> torch.Tensor:
        place = path_times(t).detach().cpu().double().numpy()
        first, last = self.knots[0], self.knots[-1]
        if self.periodic:
            turns = np.floor((place - first) / (last - first)) * (last - first)
            place, t = place - turns, t - torch.from_numpy(turns).to(t)
        slack = 1e-6 * (last - first)  # what float32 times are off by
        if len(place) and not (place.min() >= first - slack and place.max() <= last + slack):
            raise ValueError(f"the path through the inputs goes from t = {first:g} to {last:g}: t = "
                             f"{place[np.argmax(abs(place - (first + last) / 2))]:g} lies beyond")
        interval = np.clip(np.searchsorted(self.knots, place, side="right") - 1, 0, len(self.knots) - 2)
        parts, order = [], []
        for block in np.unique(interval // _BLOCK):
            here = np.flatnonzero(interval // _BLOCK == block)
            begin = block * _BLOCK - _REACH
            stop = min((block + 1) * _BLOCK, len(self.knots) - 1) + _REACH
            if not self.periodic:
                begin, stop = max(begin, 0), min(stop, len(self.knots) - 1)
            knots = self._knots(begin, stop)
            i = interval[here] - begin
            since = t[torch.from_numpy(here).to(t.device)] - torch.from_numpy(knots[i]).to(t)
            weights = cubic(since[:, None], *torch.from_numpy(_cubics(tuple(knots.tolist()))[:, i]).to(t))
            known = self._inputs(begin, stop + 1, t)
            parts.append((weights @ known.flatten(1)).reshape(len(here), *known.shape[1:]))
            order.append(here)
        if len(parts) == 1:
            return parts[0]
        back = torch.from_numpy(np.argsort(np.concatenate(order or [[]])))
        return torch.cat(parts or [self._inputs(0, 1, t)[:0]])[back.long().to(t.device)]

    def _knots(self, begin: int, stop: int) -> np.ndarray:
        """Knots from ``begin`` to ``stop``, beyond the ends as the period has them."""
        if not self.periodic:
            return self.knots[begin:stop + 1]
        turns, index = np.divmod(np.arange(begin, stop + 1), len(self.knots) - 1)
        return self.knots[index] + turns * (self.knots[-1] - self.knots[0])

    def _inputs(self, begin: int, stop: int, t: torch.Tensor) -> torch.Tensor:
        index = np.arange(begin, stop) % len(self.inputs)
        if isinstance(self.inputs, torch.Tensor):
            return placed(self.inputs, t)[torch.from_numpy(index).to(t.device)]
        return torch.stack([self._loaded(int(n)) for n in index]).to(t)

    def _loaded(self, n: int) -> torch.Tensor:
        """One input; it is kept until more inputs than a block needs have been loaded after it."""
        held = self._held
        if n not in held:
            one = self.inputs[n]
            one = load_picture(one) if isinstance(one, str) or hasattr(one, "__fspath__") else one
            one = np.array(one) if isinstance(one, np.ndarray) else one  # torch warns of arrays that are read-only
            first = next(iter(held.items()), None)
            known = {} if first is None else {f"inputs[{first[0]}]": first[1]}
            held[n] = _inputs(known | {f"inputs[{n}]": one})[-1]
        held.move_to_end(n)
        if len(held) > _BLOCK + 2 * _REACH + 1:
            held.popitem(last=False)
        return held[n]


def through(inputs: Sequence, times: torch.Tensor | None = None, *, periodic: bool = False) -> SplinePath:
    """A path that passes through inputs at given times: the cubic spline, twice continuously differentiable.

    Between the inputs the path is an interpolation: it is close to the true motion only where the times resolve it.

    Parameters
    ----------
    inputs
        At least two, of one shape: a tensor or an array ``(N, *input_shape)`` (one that lies in a file, by
        ``numpy.load(…, mmap_mode="r")``, is read as it is needed), or a sequence of tensors, arrays or names of
        pictures, which are loaded as they are needed and of which about a hundred are kept.
    times
        ``(N,)``, increasing; ``(N + 1,)`` where periodic, the last being when the first input comes again. 0, 1, 2, …
        where None.
    periodic
        Whether the last input is followed by the first, for ever.

    Returns
    -------
    SplinePath
        ``path(t: (P,)) -> (P, *input_shape)``, for t within the times; it has a ``slope``. At either end the third
        derivative is continuous over the first two intervals ("not a knot").

    Raises
    ------
    TypeError, ValueError
        For fewer than two inputs, values that are not finite, inputs without a common shape; times that are of
        another number, not finite or do not increase; t beyond the times. Inputs that are loaded as they are needed are
        checked then.

    Notes
    -----
    C. de Boor, *A Practical Guide to Splines* (1978), chapter IV. Each stretch of 32 intervals is computed from the
    inputs up to 32 beyond it, which differs from the spline through all by less than rounding.
    """
    if isinstance(inputs, list | tuple) and inputs and all(isinstance(one, torch.Tensor) for one in inputs):
        inputs = torch.stack(_inputs({f"inputs[{n}]": one for n, one in enumerate(inputs)}))
    elif isinstance(inputs, torch.Tensor):
        inputs = _inputs({"inputs": inputs})[0]
    listed = hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__") and getattr(inputs, "ndim", 1)
    if isinstance(inputs, str) or not listed:
        raise TypeError(f"inputs has to be a tensor (N, *input_shape) or a sequence of inputs, not a "
                        f"{type(inputs).__name__}")
    count = len(inputs)
    if count < 2:
        raise ValueError(f"a path through inputs needs at least two, not {count}")
    if not isinstance(periodic, bool):
        raise TypeError(f"periodic has to be True or False, not a {type(periodic).__name__}")
    wanted = count + periodic
    try:
        knots = np.arange(wanted, dtype=np.float64) if times is None else np.asarray(
            times.detach().cpu() if isinstance(times, torch.Tensor) else times, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise TypeError(f"times has to be ({wanted},) numbers, not a {type(times).__name__}") from error
    if knots.shape != (wanted,):
        raise ValueError(f"times has shape {knots.shape}: {count} inputs{' and a period' * bool(periodic)} need "
                         f"({wanted},)")
    if not np.isfinite(knots).all() or (np.diff(knots) <= 0).any():
        raise ValueError("times must be finite and increase")
    return SplinePath(inputs, knots, bool(periodic))


@functools.lru_cache(maxsize=64)
def _cubics(knots: tuple[float, ...]) -> np.ndarray:
    """``(4, K - 1, K)``: coefficients of the cubics between K knots, from the third power of the time since the left
    one down, that each input at the knots adds."""
    return CubicSpline(knots, np.eye(len(knots))).c
