"""SMP layer by layer: which units of a model make its output jerk, from a few hundred samples of a path.

Where a unit switches, its slope jumps, and the output's slope by that times the *gain* from the unit to the
output. So SMP = Σ over units and switches of |jump of the unit's own slope| · |gain|. Slopes come from one
forward pass with a tangent, gains from one backward pass for each output. A switch is seen as a changed sign or
a changed winner between neighbouring samples, so kinks need not be resolved (our derivation, from the abstract
of R. Liu, C.-W. Wong, H. Dai, arXiv:2103.14731).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smpcore import device as devices
from smpcore.attribution.measurement import SAME, Measurement
from smpcore.attribution.preflight import probe
from smpcore.attribution.suggestion import Suggestion, suggest
from smpcore.attribution.unexplained import look_closer
from smpcore.inspection.checks import checked_copy, checked_times, home_of

__all__ = ["Attribution", "LayerSmp", "attribute"]

_PATIENCE = 4.0


@dataclass(frozen=True)
class LayerSmp:
    """What one call adds.

    Attributes
    ----------
    name
        ``module.path:operation``, with ``#2``, ``#3`` for later calls of the same.
    kind
        In words: ``"relu"``, ``"max pool"``, …
    units
        How many units it has for one input.
    switches
        How often they switched between two samples, whether or not the output notices.
    smp
        ``(m,)`` its part of each output's SMP, in output units per unit of t.
    """

    name: str
    kind: str
    units: int
    switches: int
    smp: Tensor


@dataclass(frozen=True)
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
        ``(m,)`` sum of magnitudes of jumps in value (rounding, hard shrinkage), to first order in the jump; where
        it is not 0, the slope has no SMP to speak of there.
    layers
        In order of execution, one for each call that can switch, also with 0 switches.
    """

    times: Tensor
    values: Tensor
    slopes: Tensor
    total: Tensor
    value_jumps: Tensor
    layers: list[LayerSmp]

    def to_frame(self):
        """Long format: a pandas frame with columns layer, kind, units, switches, output, smp."""
        import smpcore

        pd = smpcore.need("pandas")
        rows = [(layer.name, layer.kind, layer.units, layer.switches, output, smp)
                for layer in self.layers for output, smp in enumerate(layer.smp.tolist())]
        return pd.DataFrame(rows, columns=["layer", "kind", "units", "switches", "output", "smp"])

    def plot(self, output: int = 0, ax=None):
        """Bars of SMP by layer, in order of execution; gives back the matplotlib axes.

        Parameters
        ----------
        output
            Which output.
        ax
            Where to draw; a new figure where None.
        """
        from smpcore.plotting import COLORS, PALETTE, plt

        if ax is None:
            _, ax = plt.subplots(figsize=(9.0, 1.2 + 0.4 * max(len(self.layers), 2)))
        values = [float(layer.smp[output]) for layer in self.layers]
        kinds = list(dict.fromkeys(layer.kind for layer in self.layers))
        colour = {kind: COLORS.get(kind, PALETTE[(3 + n) % len(PALETTE)]) for n, kind in enumerate(kinds)}
        for kind in kinds:
            rows = [n for n, layer in enumerate(self.layers) if layer.kind == kind]
            ax.barh(rows, [values[n] for n in rows], color=colour[kind], label=kind)
        for n, value in enumerate(values):
            ax.annotate(f" {value:.3g}", (value, n), va="center")
        ax.set_yticks(range(len(self.layers)), [layer.name for layer in self.layers])
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
        ``path(t: (P,) float64) -> (P, *input_shape)``, a differentiable torch function of time.
    times
        ``(P,)``, increasing. A few hundred are enough; a unit that switches twice between two of them is missed.
    outputs
        None for all (at most 64), indices into the output flattened to (P, m), or a callable from what the model
        returns to a tensor (P, m).
    chunk
        Samples at once, at least 2; memory grows with it, the result does not depend on it.
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
    samples, and else off by a part of the order of the spacing. Where a gain vanishes at the kink itself, as in
    ``relu(x)**2``, which has none, what is left is of that order: it halves with twice as many samples.
    """
    times = checked_times(times)
    if chunk != "auto" and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 2):
        raise ValueError(f"chunk = {chunk!r}: it must be 'auto' or a whole number of at least 2")
    model = checked_copy(model, dtype)
    run = Measurement(model, path, times.to(home_of(model, times)), outputs, dtype)
    probe(run, SAME.get(dtype, 1e-2))
    size = run.chunk() if chunk == "auto" else chunk
    begin, bar = time.monotonic(), None
    parts = []
    for part in devices.chunks(run.work, len(times), size, overlap=1):
        run.add(part, parts[-1] if parts else None)
        done = part.stop
        spent = time.monotonic() - begin
        if bar is None and done < len(times) and spent * (len(times) - done) / done > _PATIENCE:
            bar = _progress(len(times))
        if bar is not None:
            bar.update(done - bar.n)
        parts.append(part)
    if bar is not None:
        bar.close()
    found = _gathered(times, parts, run.totals)
    look_closer(run, parts, found.slopes.abs().amax(0), size)
    return found


def _gathered(times: Tensor, parts: list, totals: dict) -> Attribution:
    """What the chunks found, as one."""
    values = torch.cat([part.values[bool(n):] for n, part in enumerate(parts)])
    slopes = torch.cat([part.slopes[bool(n):] for n, part in enumerate(parts)])
    zero = values.new_zeros(values.shape[1])
    for name, layer in totals.items():
        if not bool((zero + layer.smp).isfinite().all()):
            raise ValueError(f"the gain from {name} to the output is not finite where it switches: some operation "
                             "behind it is infinitely steep there, as a square root is at 0; add a small number "
                             "inside it")
    layers = [LayerSmp(name, layer.kind, layer.units, layer.switches, zero + layer.smp)
              for name, layer in totals.items()]
    jumps = sum((layer.value_jumps for layer in totals.values()), zero)
    return Attribution(times, values, slopes, sum((layer.smp for layer in layers), zero), jumps, layers)


def _progress(count: int):
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm(total=count, desc="attribute", unit="sample", leave=False)
