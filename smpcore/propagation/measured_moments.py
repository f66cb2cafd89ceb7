"""A trained network predicted from what each of its units does along another path of the same family.

The model runs along the reference path only: there each unit's mean, variance, slope variance and gain are taken,
and where a max pooling stands the covariances of its windows. On the path that is predicted nothing runs; what is
left between the two is the Gaussian law.
"""

import copy

import torch
from torch import Tensor, fx, nn
from torch.autograd import forward_ad

from smpcore.propagation.closed_forms.gaussian_max import leads_at, ties, with_zero
from smpcore.propagation.closed_forms.unit_rule import crossing_number, hinge_rates, refuse_jumps, two_slopes
from smpcore.propagation.layer_graph import Step, read_graph, steps
from smpcore.propagation.path_nodes import inputs
from smpcore.propagation.random_weights.max_pool import check_size
from smpcore.units import windows

__all__ = ["Moments", "Recorder", "predict_from_reference"]

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
        self.runner = _Interpreter(fx.GraphModule(plain, read_graph(plain)[0]), names)
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


# Windows of a pooling that are integrated, drawn at random from all, and Sobol points in each of eight scrambles.
_WINDOWS, _POINTS = 300, 32


def predict_from_reference(model: nn.Module, reference, times: Tensor) -> list[tuple]:
    """``[(step, smp (m,), standard error (m,), kinks (m,))]`` for each call that can switch.

    A unit's kinks: T λ/(σ√(2π)) exp(−μ²/2σ²) · |p − q| · E|gain|, with moments over the reference path. A window of
    a max pooling is the maximum of its signals (`rules.max_pool_smp`). Behind a ReLU they are the ReLU's inputs, with
    0 among them; where the leader passes 0 the kink is the ReLU's.

    The path is gone along in parts, twice where there is a pooling: for every unit's moments and gains, and then for
    the windows that these tell to be worth it.
    """
    graph = steps(model)
    switches = {n: step for n, step in enumerate(graph) if step.switches}
    if not switches:
        return []
    recorder = Recorder(model, graph, {step.node for step in switches.values()}, reference, times)
    seen = {step.node: Moments() for step in switches.values()}
    for calls, gains in recorder.parts():
        for name, moments in seen.items():
            moments.add(calls[name], gains[name])
    duration = float(times[-1] - times[0])
    found = {n: _elementwise(step, seen[step.node], duration) for n, step in switches.items() if step.op != "max pool"}
    pools = {n: _Pool(graph, n, seen) for n, step in switches.items() if step.op == "max pool"}
    rows = recorder.passes({n: (pool.source, pool.channel, pool.members.clamp(min=0))
                            for n, pool in pools.items() if pool.live})
    for n, pool in pools.items():
        found |= pool.predicted(rows.get(n), duration)
    return [(graph[number], *parts) for number, parts in sorted(found.items())]


def _elementwise(step: Step, seen: Moments, duration: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rice's formula at each hinge with each unit's own moments, times its own mean |gain|: ``(m,)`` each."""
    refuse_jumps(step.seen, step.name)
    unit = step.describe(seen.mean[None])
    hinges = hinge_rates(unit, seen.mean, seen.var, seen.slope_var)
    made = sum(rate for rate, *_ in hinges)
    crossed = sum(rate / torch.where(step == 0, 1.0, step.abs()) for rate, _, step in hinges)
    smp = duration * (seen.size * made).flatten(1).sum(-1)
    kinks = duration * ((seen.size > 0) * crossing_number(torch.as_tensor(crossed), seen.slope_var)).flatten(1).sum(-1)
    return smp, torch.zeros_like(smp), kinks


class _Pool:
    """A max pooling: which of its windows are integrated, and what they give."""

    def __init__(self, graph: list[Step], number: int, seen: dict[str, Moments]):
        step = graph[number]
        before = step.inputs[0]
        slopes = two_slopes(graph[before].seen) if graph[before].op == "unit" else None
        self.number, self.relu = number, before if slopes and slopes[:2] == (1, 0) else None
        self.alone = self.relu is not None and sum(self.relu in each.inputs for each in graph) == 1
        self.source = graph[before].node if self.relu is not None else step.node
        where, _ = windows(seen[step.node].mean.shape[1:], **step.settings)
        check_size(step, where)
        self.size = seen[step.node].size.flatten(2)
        # Windows that the output notices most are drawn most often, and weighted with the inverse of their chance.
        chance = self.size.sum(0).flatten()
        self.live = float(chance.sum()) > 0
        if not self.live:
            return
        self.chance = chance / chance.sum()
        generator = torch.Generator().manual_seed(0)
        count = min(_WINDOWS, 2 * len(chance))
        picked = torch.multinomial(self.chance.cpu(), count, replacement=True, generator=generator)
        self.picked = picked.to(chance.device)
        self.channel, self.window = self.picked // self.size.shape[2], self.picked % self.size.shape[2]
        self.members = where.to(chance.device)[self.window]

    def predicted(self, rows: tuple[Tensor, Tensor] | None, duration: float) -> dict[int, tuple[Tensor, ...]]:
        """Swaps of the lead, and for a ReLU before it where the leader passes 0: ``{step: (smp, error, kinks)}``."""
        if rows is None:
            zero = self.size.new_zeros(len(self.size))
            return dict.fromkeys([self.number, *([self.relu] if self.alone else [])], (zero, zero, zero))
        mean, cov, slope_cov = _moments(*rows, self.members < 0)
        weight = duration * self.size[:, self.channel, self.window] / self.chance[self.picked]
        if self.relu is not None:
            mean, cov, slope_cov = with_zero(mean, cov, slope_cov)
        found = ties(cov, slope_cov, mean, torch.ones_like(mean, dtype=torch.bool))
        leads, zero = leads_at(found, _POINTS), found.second == self.members.shape[1]

        def made(pairs):
            smp, ties = ((leads * each)[..., pairs].sum(-1) for each in (found.strength, found.number))
            seen = duration / self.chance[self.picked] * (weight > 0)
            return *_weighted(smp, weight), _weighted(ties, seen)[0]

        return {self.number: made(~zero)} | ({self.relu: made(zero)} if self.alone else {})


def _weighted(rate: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over windows of rates ``(S, W)`` times weights ``(m, W)``, and its error: of the draw of windows, and of
    the integration, which its scrambles tell."""
    each = rate[:, None] * weight
    error = each.mean(0).var(-1) / each.shape[-1]
    if len(each) > 1:
        error = error + each.mean(-1).var(0) / len(each)
    return each.mean((0, -1)), error.sqrt()


def _moments(values: Tensor, slopes: Tensor, missing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means and covariances ``(W, k[, k])`` over time; what lies beyond the border stays far below all others."""
    mean = values.mean(0)
    centred = values - mean
    there = (~missing[:, :, None] & ~missing[:, None, :]).to(mean)
    cov, slope_cov = (torch.einsum("pwi,pwj->wij", part, part) / len(part) * there for part in (centred, slopes))
    far = mean.amin(-1, keepdim=True) - 40 * torch.diagonal(cov, dim1=-2, dim2=-1).amax(-1, keepdim=True).sqrt() - 1
    return torch.where(missing.to(mean.device), far, mean), cov, slope_cov
