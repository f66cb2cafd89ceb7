"""What a model's units do along a reference path, gathered in parts of the path."""

import copy

import torch
from torch import Tensor, fx, nn
from torch.autograd import forward_ad

from smpcore.propagation._graph import Step
from smpcore.propagation._paths import inputs

__all__ = ["Moments", "Recorder"]

# Numbers kept for the calls of one part: 64 MB.
_NUMBERS = 1 << 23


class Moments:
    """Mean, variance and mean square of slopes of each unit, and its mean |gain|, added up over parts."""

    def __init__(self):
        self.count, self.mean, self.squares, self.slopes, self.gains = 0, 0.0, 0.0, 0.0, 0.0

    def add(self, before: tuple[Tensor, Tensor], gains: Tensor) -> None:
        """``before`` values and slopes ``(P, …)``, ``gains`` ``(m, P, …)``."""
        values, slopes = before
        count, mean = len(values), values.mean(0)
        squares, shift, total = ((values - mean) ** 2).sum(0), mean - self.mean, self.count + count
        # Means of parts joined (T. Chan, G. Golub, R. LeVeque, 1979): no large numbers are taken from one another.
        self.squares = self.squares + squares + shift**2 * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.slopes = self.slopes + (slopes**2).sum(0)
        self.gains = self.gains + gains.abs().sum(1)
        self.count = total

    @property
    def var(self) -> Tensor:
        return self.squares / (self.count - 1)

    @property
    def slope_var(self) -> Tensor:
        return self.slopes / self.count

    @property
    def size(self) -> Tensor:
        """``(m, …)``: mean |gain|."""
        return self.gains / self.count


class Recorder:
    """Runs a traced model along a path, part by part, and tells what passes the named calls."""

    def __init__(self, model: nn.Module, graph: list[Step], names: set[str], path, times: Tensor):
        plain = copy.deepcopy(model).double().requires_grad_(False)
        self.runner = _Interpreter(fx.GraphModule(plain, fx.Tracer().trace(plain)), names)
        self.path, self.times = path, times

    def parts(self, gains: bool = True):
        """``calls, gains`` of each part: {call: (values, slopes)} that enter, {call: ``(m, P, …)``} of its output."""
        start, size = 0, 1
        while start < len(self.times):
            values, slopes = inputs(self.path, self.times[start:start + size], "reference")
            with forward_ad.dual_level(), torch.enable_grad():
                try:
                    found = self.runner.run(forward_ad.make_dual(values.requires_grad_(gains), slopes))
                except RuntimeError as error:
                    if "forward AD" in str(error):
                        raise
                    raise ValueError(f"the reference's inputs of shape {tuple(values.shape[1:])} do not fit the model: "
                                     f"{str(error).splitlines()[0]}") from error
                outputs = forward_ad.unpack_dual(found).primal.flatten(1)
            calls = {name: before for name, (before, _) in self.runner.calls.items()}
            yield calls, self._gains(outputs) if gains else {}
            kept = sum(after[0].numel() for _, after in self.runner.calls.values()) * (3 + outputs.shape[1])
            start, size = start + size, max(1, _NUMBERS // max(1, kept))

    def passes(self, chosen: dict[int, tuple[str, Tensor, Tensor]]) -> dict[int, tuple[Tensor, Tensor]]:
        """Values and slopes ``(P, W, k)`` of windows, along the whole path.

        ``chosen`` has the call whose input they are of, the channel ``(W,)`` and the positions ``(W, k)``.
        """
        found = {number: ([], []) for number in chosen}
        for calls, _ in self.parts(gains=False) if chosen else ():
            for number, (name, channel, members) in chosen.items():
                for rows, part in zip(found[number], calls[name], strict=True):
                    rows.append(part.flatten(2)[:, channel[:, None], members])
        return {number: tuple(torch.cat(rows) for rows in both) for number, both in found.items()}

    def _gains(self, outputs: Tensor) -> dict[str, Tensor]:
        names, kept = zip(*((name, after) for name, (_, after) in self.runner.calls.items()), strict=True)
        rows = [torch.autograd.grad(outputs[:, m].sum(), kept, retain_graph=m + 1 < outputs.shape[1], allow_unused=True)
                for m in range(outputs.shape[1])]
        return {name: torch.stack([torch.zeros_like(kept[n]) if row[n] is None else row[n] for row in rows])
                for n, name in enumerate(names)}


class _Interpreter(fx.Interpreter):
    """Runs a traced model and keeps what passes the named calls."""

    def __init__(self, module: fx.GraphModule, names: set[str]):
        super().__init__(module)
        self.names, self.calls = names, {}

    def run_node(self, n):
        if n.name not in self.names:
            return super().run_node(n)
        given = self.fetch_args_kwargs_from_env(n)[0][0]
        before = tuple(part.detach().clone() for part in forward_ad.unpack_dual(given))
        primal, tangent = forward_ad.unpack_dual(super().run_node(n))
        kept = primal.clone()
        self.calls[n.name] = (before, kept)
        return forward_ad.make_dual(kept.view_as(kept), tangent)
