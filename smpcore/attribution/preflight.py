"""What is asked of a model before it is measured: does it run, is all that switches in sight, where are the samples."""

import warnings

import torch
from torch import Tensor
from torch.autograd import forward_ad

from smpcore.arguments import runs
from smpcore.attribution.interpreter import spikes_as_steps
from smpcore.attribution.switch_events import Layout, find_layout
from smpcore.attribution.watched_model import WatchedModel, candidates
from smpcore.inspection.opaque_ops import Hidden, hidden_switches
from smpcore.inspection.refusals import refusal, sentence

__all__ = ["probe"]


class _Level(torch.autograd.Function):
    """The output of a step, computed out of sight, as that of a function whose inside is not looked at."""

    @staticmethod
    def forward(ctx, x, level):
        return level(x).clone()


# Bound before any such function is replaced.
_level = _Level.apply


def probe(watched: WatchedModel, times: Tensor, tolerance: float) -> tuple[dict[str, Layout | None], float]:
    """Try a model on a few samples of its path.

    Parameters
    ----------
    times
        The path's.
    tolerance
        Samples of one path, computed in other batches, agree to this.

    Returns
    -------
    layouts
        Where each layer's samples are, by its name.
    numbers
        How many numbers all layers hold for one sample.

    Raises
    ------
    ValueError, TypeError
        For a model that fails, a path that gives NaN, switches out of sight, output that is not a function of t.
    """
    # Moments that no symmetry of the path is likely to make alike; batches of two and of three, for the dimension
    # that holds the samples grows with them.
    a, b, c = (times[round(part * (len(times) - 1))] for part in (0.146, 0.382, 0.709))
    few, more = torch.stack([a, b]), torch.stack([a, c, b])
    hidden = _plainly(watched, few, torch.stack([c, a]))
    seen_first, layouts, numbers, customs = {}, {}, [], []

    def outputs(t: Tensor, look, custom) -> Tensor:
        """The outputs at times t; ``look(layer, seen, value)`` sees each call that can switch."""
        def observe(layer, seen, edge, value, where):
            with torch.no_grad():
                if any(bool(part.isnan().any()) for part in seen.inputs):
                    raise refusal("nan", layer, t=(float(t[0]), float(t[-1])))
                look(layer, seen, value)

        with forward_ad.dual_level():
            return watched.forward(t, observe, alone=True, custom=custom)[0].detach()

    def keep(layer, seen, value):
        seen_first[layer] = candidates(seen, value).detach().clone()
        numbers.append((value.numel() + sum(part.numel() for part in seen.inputs)) / len(few))

    def compare(layer, seen, value):
        rows = candidates(seen, value).detach()
        layouts[layer] = find_layout(seen_first.pop(layer, rows), rows, tolerance)

    first, second = outputs(few, keep, customs.append), outputs(more, compare, str)
    if bool(first.isfinite().all()):
        if float((first - second[[0, 2]]).abs().max()) > tolerance * (1 + float(first.abs().max())):
            raise refusal("varies", at="")
        _warn_of_custom(hidden, list(dict.fromkeys(customs)))
    return layouts, sum(numbers)


def _plainly(watched: WatchedModel, times: Tensor, others: Tensor) -> list[Hidden]:
    """Plain passes first, at two sets of times: what fails there is not the measurement's doing."""
    x = watched.inputs(times)
    bad = x.isnan().flatten(1).any(1).nonzero()
    if len(bad):
        raise refusal("nan path", t=float(times[int(bad[0, 0])]))
    with runs(watched.dtype, x, watched.model), spikes_as_steps(
            lambda name, x, level: _level(x, level) + 0 * x, str):
        hidden = hidden_switches(watched.model, x, watched.scope, watched.inputs(others))
    for found in hidden:
        if found.switches and found.way != "custom":
            raise ValueError(found.sentence)
    return hidden


def _warn_of_custom(hidden: list[Hidden], names: list[str]) -> None:
    inside = [found for found in hidden if found.way == "custom"]
    if not names and not inside:
        return
    which = ", ".join(names) or "on the way to the output"
    ops = ", ".join(dict.fromkeys(found.op for found in inside if found.switches))
    warnings.warn(sentence("custom", which=which, does=f", and {ops} does" if ops else ""), stacklevel=5)
