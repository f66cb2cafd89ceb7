"""SMP layer by layer: which units of a model make its output jerk, from a few hundred samples of a path.

Where a unit switches, its slope jumps, and the output's slope by that times the *gain* from the unit to the
output. So SMP = Σ over units and switches of |jump of the unit's own slope| · |gain|. Slopes come from one
forward pass with a tangent, gains from one backward pass for each output. A switch is seen as a changed sign or
a changed winner between neighbouring samples, so kinks need not be resolved (our own derivation, in notebook 05,
sections 1 and 2, from the abstract of R. Liu, C.-W. Wong, H. Dai, arXiv:2103.14731).
"""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import smpcore
from smpcore.arguments import checked_copy, checked_times, home_of, with_gradients
from smpcore.arguments import device as devices
from smpcore.attribution.measurement import LayerSmp, Measurement, chunk_size
from smpcore.attribution.preflight import probe
from smpcore.attribution.suggestion import Suggestion, suggest
from smpcore.attribution.unexplained import Course, look_closer, refine
from smpcore.attribution.watched_model import WatchedModel
from smpcore.inspection.module_scope import call_site
from smpcore.inspection.refusals import refusal

__all__ = ["Attribution", "LayerSmp", "attribute"]

_PATIENCE = 4.0
# Of kinds in figures: places in the cycle of colours of the caller's own style.
_COLOURS = {"relu": "C0", "prelu": "C0", "max pool": "C1"}
# Samples of one path, computed in other batches, agree to this.
_SAME = {torch.float64: 1e-8, torch.float32: 1e-3}


@dataclass(frozen=True, repr=False)
class Attribution:
    """SMP of each output along a path, layer by layer.

    Attributes
    ----------
    times
        ``(P,)``.
    values, slopes
        ``(P, m)`` the outputs and their slopes along the path.
    total
        ``(m,)`` SMP, the sum over the layers.
    value_jumps
        ``(m,)`` sum of magnitudes of jumps in value (rounding, hard shrinkage, spikes), each of the output's counted
        once; where it is not 0, the slope has no SMP to speak of there.
    layers
        In order of execution, one for each call that can switch, also with 0 switches.
    unexplained
        ``(m,)`` how far the total may be off, in its units, summed over intervals: the change of the outputs' slopes
        that no switch (nor curvature) accounts for; half the difference between the two readings of kinks whose
        gains differ from one end of an interval to the other (within an interval in squares, for they have either
        sign); and what units that switch there and back between two samples are estimated to add.
    """

    times: Tensor
    values: Tensor
    slopes: Tensor
    total: Tensor
    value_jumps: Tensor
    layers: list[LayerSmp]
    unexplained: Tensor

    def __repr__(self) -> str:
        outputs = ", ".join(f"{total:.4g} ± {off:.2g}" for total, off in
                            zip(self.total.tolist(), self.unexplained.tolist(), strict=True))
        jumps = f", value jumps {self.value_jumps.tolist()}" if bool(self.value_jumps.any()) else ""
        return f"Attribution(SMP {outputs}{jumps}, {len(self.layers)} layers, {len(self.times)} samples)"

    def to_frame(self, group: bool | Callable[[str], str] = False):
        """Long format: a pandas frame with columns layer, kind, units, switches, output, smp.

        Its ``attrs["unexplained"]`` is the list of the outputs' `unexplained`, which belongs to no layer.

        Parameters
        ----------
        group
            True for one row for each call site: the calls ``relu``, ``relu#2``, ``relu#3``, … (iterations, time steps,
            stages of a solver) summed, units included. A function of a call's name gives the name of its row instead.
        """
        pd = smpcore.need("pandas")
        rows = [(layer.name, layer.kind, layer.units, layer.switches, output, smp)
                for layer in _grouped(self.layers, group) for output, smp in enumerate(layer.smp.tolist())]
        frame = pd.DataFrame(rows, columns=["layer", "kind", "units", "switches", "output", "smp"])
        frame.attrs["unexplained"] = self.unexplained.tolist()
        return frame

    def plot(self, output: int = 0, ax=None, *, group: bool | Callable[[str], str] = False):
        """Bars of SMP by layer, in order of execution; gives back the matplotlib axes.

        Parameters
        ----------
        output
            Which output.
        ax
            Where to draw; a new figure where None.
        group
            As in `to_frame`.
        """
        plt = smpcore.need("matplotlib.pyplot")
        layers = _grouped(self.layers, group)
        if ax is None:
            _, ax = plt.subplots(figsize=(9.0, 1.2 + 0.4 * max(len(layers), 2)))
        values = [float(layer.smp[output]) for layer in layers]
        kinds = list(dict.fromkeys(layer.kind for layer in layers))
        colour = {kind: _COLOURS.get(kind, f"C{3 + n}") for n, kind in enumerate(kinds)}
        for kind in kinds:
            rows = [n for n, layer in enumerate(layers) if layer.kind == kind]
            ax.barh(rows, [values[n] for n in rows], color=colour[kind], label=kind)
        for n, value in enumerate(values):
            ax.annotate(f" {value:.3g}", (value, n), va="center")
        ax.set_yticks(range(len(layers)), [layer.name for layer in layers])
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.set_xlabel("SMP (output units per unit of t)")
        ax.set_title(f"total {float(self.total[output]):.4g}")
        if len(kinds) > 1:
            ax.legend()
        return ax

    def suggest(self, reduction: float = 0.8, output: int = 0) -> Suggestion:
        """The fewest layers whose replacement by smooth ones is expected to take a share of an output's SMP.

        Parameters
        ----------
        reduction
            The share to be taken, in (0, 1].
        output
            Which output.

        Returns
        -------
        Suggestion
            Its sentence, layers and SMP expected afterwards are for replacement without retraining, as
            `smpcore.smoothing.relax` does it.

        Raises
        ------
        ValueError
            For another reduction, or an output that was not attributed.
        """
        return suggest(self, reduction, output)


@with_gradients
def attribute(model, path: Callable[[Tensor], Tensor], times: Tensor, *,
              outputs: Sequence[int] | Callable | None = None, chunk: int | str = "auto",
              dtype: torch.dtype = torch.float64) -> Attribution:
    """SMP of a model's outputs along a path, layer by layer.

    Parameters
    ----------
    model
        Any `torch.nn.Module` in evaluation mode (or a function of a tensor), on any device. The measurement runs
        on a copy in ``dtype``.
    path
        ``path(t: (P,) float64) -> (P, *input_shape)``, a differentiable torch function of time. Where it has a method
        ``slope(t) -> (P, *input_shape)``, that is taken for dx/dt.
    times
        ``(P,)``, increasing. A few hundred are enough. What switches there and back between two is looked for in some
        of the intervals (see the notes).
    outputs
        None for all (at most 64), indices into the output flattened to (P, m), or a callable from what the model
        returns to a tensor (P, m).
    chunk
        Samples at once, at least 2; memory grows with it, the result does not depend on it. By itself as many as
        `measurement.chunk_size` gives, halved where memory runs out.
    dtype
        In which everything but the times is computed.

    Returns
    -------
    Attribution

    Raises
    ------
    ValueError, TypeError
        For times that do not increase; a path without tangent or with the wrong number of inputs; a model in
        training mode with batch norm or dropout, one that changes between calls, or that mixes the samples of a
        batch; output that is not finite; more than 64 outputs; an operation without forward-mode AD; an output
        that depends on a switch that is not followed (sort, topk, a mask times its input, …).

    Notes
    -----
    Units that switch on the same difference kink together: their jumps are added with their signs before the
    magnitude is taken, which is shared out over the layers in proportion to their own.

    Slopes and gains are read at the samples beside a switch, so that a figure is exact where they are constant between
    samples, and else off by about `Attribution.unexplained`. A few intervals are measured again by themselves, beside
    the moments at which units switch: where that adds more than 5% to a total, and to the steepest slope, or where
    gains differ by so much, more of them are, until there are as many as ``times`` and 64 beyond, or fewer beyond where
    a model's layers hold more than half a million numbers for one sample. What may be missing then is extrapolated from
    these, and warned of (`SamplingWarning`) where it is over 5%.

    Where a gain vanishes at the kink itself, as in ``relu(x)**2``, which has none, what is left is of the order of the
    spacing: it halves with twice as many samples.
    """
    times = checked_times(times)
    if chunk != "auto" and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 2):
        raise ValueError(f"chunk = {chunk!r}: it must be 'auto' or a whole number of at least 2")
    model = checked_copy(model, dtype)
    watched = WatchedModel(model, path, outputs, dtype)
    moments = times.to(home_of(model, times))
    same = _SAME.get(dtype, 1e-2)
    layouts, numbers = probe(watched, moments, same)
    measurement = Measurement(watched, layouts)
    size = chunk_size(moments.device.type, numbers) if chunk == "auto" else chunk
    begin, bar, done, course = time.monotonic(), None, 0, None

    def work(start, stop):
        return measurement.part(moments[start:stop], start, stop == len(times))

    for part in devices.chunks(work, len(times), size, overlap=1):
        course = course or Course(moments, part)
        start = max(done - 1, 0)
        course.add(part, start, same)
        done, spent = start + len(part.values), time.monotonic() - begin
        if bar is None and done < len(times) and spent * (len(times) - done) / done > _PATIENCE:
            bar = _progress(len(times))
        if bar is not None:
            bar.update(done - bar.n)
    if bar is not None:
        bar.close()
    for name, layer in course.layers.items():
        if not bool(layer.smp.isfinite().all()):
            raise refusal("steep behind", name)
    course.close_seams(measurement.part)
    measure = functools.partial(measurement.in_chunks, size=size)
    unexplained = refine(measure, course, size, numbers) + look_closer(measure, course, dtype)
    layers = list(course.layers.values())
    jumps = sum((layer.value_jumps for layer in layers), torch.zeros_like(course.total))
    return Attribution(times, course.values, course.slopes, course.total, jumps, layers, unexplained)


def _grouped(layers: list[LayerSmp], group: bool | Callable[[str], str]) -> list[LayerSmp]:
    """The layers as they are, or summed under the names that ``group`` gives them, one for each kind."""
    if not group:
        return layers
    site = group if callable(group) else call_site
    found = {}
    for layer in layers:
        found.setdefault((site(layer.name), layer.kind), []).append(layer)
    return [LayerSmp(name, kind, *map(sum, zip(*((one.units, one.switches, one.smp, one.value_jumps) for one in calls),
                                               strict=True))) for (name, kind), calls in found.items()]


def _progress(count: int):
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm(total=count, desc="attribute", unit="sample", leave=False)
