"""Which layers to make smooth, from what each adds to SMP."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Suggestion", "suggest"]


@dataclass(frozen=True)
class Suggestion:
    """The fewest layers that are expected to take a share of one output's SMP with them.

    Attributes
    ----------
    layers
        Their names, the one that takes most first; `smpcore.smoothing.relax` takes them as its ``layers``.
    expected
        ``(m,)`` each output's SMP afterwards: what the other layers add today. For replacement in a trained network,
        without retraining; after retraining the other layers are no longer the same.
    output
        The output that was asked about.
    total
        ``(m,)`` each output's SMP today.
    shares
        By layer, the share of that output's SMP that it takes.
    kinds
        By layer, what it is.
    """

    layers: list[str]
    expected: Tensor
    output: int
    total: Tensor
    shares: list[float]
    kinds: list[str]

    def to_frame(self):
        """A pandas frame with a row for each layer: layer, kind, share, and left: the share without all down to it."""
        import pandas as pd

        frame = pd.DataFrame({"layer": self.layers, "kind": self.kinds, "share": self.shares})
        return frame.assign(left=1 - frame["share"].cumsum())

    def __repr__(self) -> str:
        total, left = float(self.total[self.output]), float(self.expected[self.output])
        if not self.layers:
            return f"Suggestion: output {self.output} has no SMP: nothing to replace"
        return (f"Suggestion: make {' and '.join(self.layers)} smooth; SMP of output {self.output} is expected to fall "
                f"from {total:.4g} to {left:.4g} ({1 - left / total:.0%} less), if the network is not trained again")


def suggest(found, reduction: float, output: int) -> Suggestion:
    """As `Attribution.suggest`, of the attribution ``found``."""
    if isinstance(reduction, bool) or not isinstance(reduction, int | float) or not 0 < reduction <= 1:
        raise ValueError(f"reduction = {reduction!r}: it is the share of SMP to be taken, over 0 and at most 1")
    count = len(found.total)
    if isinstance(output, bool) or not isinstance(output, int) or not -count <= output < count:
        raise ValueError(f"output = {output!r}: the attribution has outputs 0 to {count - 1}")
    total, layers, taken = float(found.total[output]), [], 0.0
    for layer in sorted(found.layers, key=lambda layer: -float(layer.smp[output])):
        # Rounding of a sum over some dozen layers is allowed for, or all of it would never be reached.
        if taken >= reduction * total * (1 - 1e-12) or not float(layer.smp[output]) > 0:
            break
        layers.append(layer)
        taken += float(layer.smp[output])
    expected = found.total - sum((layer.smp for layer in layers), 0 * found.total)
    return Suggestion([layer.name for layer in layers], expected.clamp(min=0), output % count, found.total,
                      [float(layer.smp[output]) / total for layer in layers], [layer.kind for layer in layers])
