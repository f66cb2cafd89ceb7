"""Kinks on their way through layers whose weights are known: each source's gain to every signal.

A kink of one unit reaches every signal behind it at the same moment, by several ways, which add with their signs. So
what travels is the signed gain from each source; magnitudes are taken where SMP is read, and never before.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Kinks", "draws_for", "fresh", "matched", "smp_of"]

# Numbers of one source's layer: as many draws as fit, and the most that are carried at all (half a gigabyte).
_ROOM, _MOST = 1 << 22, 1 << 26
_FEWEST, _ENOUGH = 16, 256


@dataclass(frozen=True)
class Kinks:
    """Kinks of S sources that stand at different times.

    Attributes
    ----------
    rate
        ``(S,)`` SMP of each at its own unit's output.
    gain
        ``(K, S, n)`` jump of slope at each of n signals for a jump of 1 at the source, in K draws of the gates in
        between; K is 1 as long as there are none.
    """

    rate: Tensor
    gain: Tensor

    @property
    def smp(self) -> Tensor:
        """``(n,)``: Σ_s rate_s · E|gain_sj|."""
        return self.rate @ self.gain.abs().mean(0)

    def linear(self, weight: Tensor) -> "Kinks":
        """Behind W ``(out, n)``: gains add with their signs."""
        checked(*self.gain.shape[:2], len(weight))
        return replace(self, gain=self.gain @ weight.T)

    def gated(self, slope: Tensor) -> "Kinks":
        """Behind an elementwise unit whose slopes ``(M, n)`` were drawn."""
        chosen = slope[:self.draws(slope.shape[1])]
        return replace(self, gain=self.gain * chosen[:, None])

    def picked(self, winner: Tensor) -> "Kinks":
        """Behind a pooling whose winners ``(M, W)`` were drawn: each window passes its winner's on."""
        chosen = winner[:self.draws(winner.shape[1])]
        gain = self.gain.expand(len(chosen), *self.gain.shape[1:])
        return replace(self, gain=gain.gather(2, chosen[:, None].expand(-1, gain.shape[1], -1)))

    def draws(self, signals: int) -> int:
        return len(self.gain) if len(self.gain) > 1 else draws_for(len(self.rate), signals)


def draws_for(sources: int, signals: int) -> int:
    """How many draws of the gates are carried; an even number, for each has its mirror image beside it."""
    count = max(_FEWEST, min(_ENOUGH, _ROOM // max(1, sources * signals)))
    checked(count, sources, signals)
    return count // 2 * 2


def checked(draws: int, sources: int, signals: int) -> None:
    """Refuse what would not fit in memory, before it is made."""
    if draws * sources * signals > _MOST:
        raise ValueError(f"the kinks of {sources:,} units, in {draws} draws, reach {signals:,} signals: more than "
                         f"{_MOST:,} gains to carry; predict_network goes through whole networks")


def fresh(rate: Tensor, alike: Tensor | None = None) -> Kinks:
    """New kinks of n units, each a source, with those that always kink together made one.

    Parameters
    ----------
    rate
        ``(n,)``.
    alike
        ``(n, n)``: ±1 where two units kink together, by the sign of their jumps' product; 0 elsewhere.
    """
    if alike is None:
        alike = torch.eye(len(rate), dtype=rate.dtype, device=rate.device)
    first = (alike != 0).to(torch.int8).argmax(1)
    own = torch.arange(len(rate), device=rate.device)
    kept = (first == own) & (rate > 0)
    sources = rate[kept]
    return Kinks(sources, (alike[kept] * rate / sources[:, None])[None])


def smp_of(kinks: tuple[Kinks, ...], like: Tensor) -> Tensor:
    """``(n,)`` of all sources together: they stand at different times."""
    return sum((each.smp for each in kinks), torch.zeros_like(like))


def matched(kinks: tuple[Kinks, ...], smp: Tensor) -> tuple[Kinks, ...]:
    """Gains to each signal scaled to the SMP ``(n,)`` that a closed form gives, where draws gave them."""
    found = smp_of(kinks, smp)
    factor = torch.where(found > 0, smp / torch.where(found > 0, found, 1.0), 1.0)
    return tuple(replace(each, gain=each.gain * factor) for each in kinks)
