"""Random architectures, measured in three ways that must agree: trace, brute force, layer by layer.

    python tests/fuzz.py --networks 5000

Each network is drawn from its seed as *source text*, so that a disagreement is printed as a script that
reproduces it. Exit status 1 where there was one.
"""

import argparse
import random
import sys
import time
import warnings
from dataclasses import dataclass

import torch
from brute import brute_smp, values_and_slopes
from torch import Tensor

from smpcore import attribute, trace_line

#: Samples of the path for the measurement layer by layer.
SAMPLES = 401
#: Its error on one output is that of reading gains beside the kink, not at it; few kinks average little out. Errors
#: count from so many kinks, and none may exceed 8% from so many.
ENOUGH_KINKS, MANY_KINKS, ATTRIBUTED = 30, 100, 0.08
#: The trace is exact: rounding alone, in jumps as parts of the steepest slope, in times as parts of the line.
EXACT, ON_TIME = 1e-6, 1e-7
#: Kinks that no call of Python shows: refused, never certified.
HIDDEN = ["x = TRACED(x)", "x = torch.linalg.norm(torch.stack([x, 0 * x]), 1, 0)",
          "x = torch.copysign(x, torch.ones_like(x))",
          "x = F.hinge_embedding_loss(x, torch.ones_like(x) - 2, margin=0.5, reduction='none')"]


@dataclass
class Draft:
    """A network while it is being drawn: lines of ``__init__`` and ``forward``, and the shape of x so far."""

    rng: random.Random
    dimensions: int
    channels: int
    side: int

    def __post_init__(self):
        self.init, self.body, self.count = [], [], 0

    def module(self, text: str) -> str:
        self.count += 1
        self.init.append(f"self.m{self.count} = {text}")
        return f"self.m{self.count}"

    def conv(self, out: int | None = None) -> str:
        out, d = out or self.channels, self.dimensions
        if d == 0:
            return self.module(f"nn.Linear({self.channels}, {out})")
        groups = self.channels if out == self.channels and self.rng.random() < 0.2 else 1
        return self.module(f"nn.Conv{d}d({self.channels}, {out}, 3, padding=1, groups={groups})")

    def say(self, line: str) -> None:
        self.body.append(line)


def activation(draft: Draft, x: str = "x") -> str:
    """An expression that applies some unit to ``x``."""
    kinds = ["torch.relu({x})", "F.relu({x})", "({x} * 1).relu_()", "F.relu({x}, inplace=True)",
             "F.leaky_relu({x}, 0.2)", "F.relu6(3 * {x})", "F.hardtanh({x}, -0.4, 0.5)",
             "{x}.clamp(min=-0.1, max=0.6)", "torch.abs({x})", "F.softshrink({x}, 0.1)", "torch.clamp_min({x}, 0.05)",
             "torch.maximum({x}, -0.3 * {x})", "torch.min({x}, 0.1 - {x})", "F.rrelu({x}, 0.1, 0.3)",
             "F.threshold({x}, 0.1, 0.1)", "{x}.clip(max=0.2)"]
    if draft.rng.random() < 0.3:
        prelu = draft.module(f"nn.PReLU({draft.rng.choice([1, draft.channels])})")
        return f"{prelu}({x})"
    # A writing kind only where x is nobody else's: behind `* 1`.
    kind = draft.rng.choice(kinds)
    return kind.format(x=f"({x} * 1)" if "inplace" in kind else x)


def act(draft: Draft) -> None:
    draft.say(f"x = {activation(draft)}")


def layer(draft: Draft) -> None:
    out = draft.rng.choice([2, 3, 4]) if draft.dimensions else draft.rng.choice([4, 6, 8])
    name = draft.conv(out)
    draft.channels = out
    draft.say(f"x = {name}(x)")
    act(draft)


def residual(draft: Draft) -> None:
    first, second = draft.conv(), draft.conv()
    draft.say(f"y = {second}({activation(draft, f'{first}(x)')})")
    draft.say(draft.rng.choice(["x = x + y", "y += x\nx = y", "x = torch.add(y, x)", "x = F.relu(x)\nx = x - y"]))
    if draft.rng.random() < 0.5:
        act(draft)


def shared(draft: Draft) -> None:
    name, unit = draft.conv(), draft.module("nn.ReLU()")
    for _ in range(2):
        draft.say(f"x = {unit}({name}(x))")


def norm(draft: Draft) -> None:
    d = draft.dimensions
    draft.say(f"x = {draft.module(f'nn.BatchNorm{max(d, 1)}d({draft.channels})')}(x)")


def both_signs(draft: Draft) -> None:
    draft.say("x = torch.cat([F.relu(x), F.relu(-x)], 1)")
    draft.channels *= 2
    reduce = draft.conv(draft.channels // 2)
    draft.channels //= 2
    draft.say(f"x = {reduce}(x)")


def maxout(draft: Draft) -> None:
    name = draft.conv(2 * draft.channels)
    draft.say(f"y = {name}(x)")
    draft.say(draft.rng.choice([
        "x = torch.maximum(*y.chunk(2, 1))", "x = y.unflatten(1, (2, -1)).amax(1)",
        "x = y.unflatten(1, (-1, 2)).max(2).values", "x = torch.minimum(y[:, ::2], y[:, 1::2])",
        "a, b = y.chunk(2, 1)\nx = torch.maximum(a, b) - 0.5 * torch.minimum(a, b)"]))


def written_view(draft: Draft) -> None:
    draft.say("x = x * 1")
    draft.say(draft.rng.choice(["x[:, :1].relu_()", "y = x[:, 1:]\ny.clamp_(min=0)", "x[:, :1] = F.relu(x[:, :1])",
                                "y = x[:, :1]\nx.mul_(0.5)\nx = x + y.relu()"]))


def pool(draft: Draft) -> None:
    d, side = draft.dimensions, draft.side
    if not d or side < 3:
        return layer(draft)
    kind = draft.rng.random()
    if kind < 0.2:
        draft.side = draft.rng.randint(1, side - 1)
        draft.say(f"x = F.adaptive_max_pool{d}d(x, {draft.side})")
        return None
    size, stride = draft.rng.choice([(2, 2), (3, 2), (2, 1), (3, 1), (3, 3)])
    padding = draft.rng.choice([0, 0, 1 if size > 2 else 0])
    dilation = 2 if side + 2 * padding >= 2 * (size - 1) + 1 and draft.rng.random() < 0.2 else 1
    ceil = draft.rng.random() < 0.4
    window = dilation * (size - 1) + 1
    if kind < 0.35:
        padding, dilation, window = 0, 1, size
        draft.say(f"x = F.avg_pool{d}d(x, {size}, {stride}, ceil_mode={ceil})")
    else:
        if draft.rng.random() < 0.6:
            draft.say("x = F.relu(x)")
        options = f"{size}, stride={stride}, padding={padding}, dilation={dilation}, ceil_mode={ceil}"
        draft.say(draft.rng.choice([
            f"x = {draft.module(f'nn.MaxPool{d}d({options})')}(x)", f"x = F.max_pool{d}d(x, {options})",
            f"x = F.max_pool{d}d(x, {options}, return_indices=True)[0]"]))
    reach = side + 2 * padding - window
    draft.side = reach // stride + 1
    if ceil and reach % stride and draft.side * stride < side + padding:
        draft.side += 1
    return None


def turned(draft: Draft) -> None:
    draft.say("x = torch.relu(x.movedim(1, -1)).movedim(-1, 1)" if draft.dimensions else
              "x = F.relu(x.unsqueeze(-1)).squeeze(-1)")


BLOCKS = [act, layer, layer, residual, shared, norm, both_signs, maxout, written_view, pool, pool, pool, turned]


def draw(seed: int) -> str:
    """The source text of one network: a class ``Net``, and the shape of its input."""
    rng = random.Random(seed)
    dimensions = rng.choice([0, 1, 1, 2, 2, 2, 3])
    side = (1, 8, 5, 3)[dimensions]
    channels = rng.choice([1, 2]) if dimensions else 6
    shape = (channels, *[side] * dimensions)
    draft = Draft(rng, dimensions, channels, side)
    layer(draft)
    for _ in range(rng.randint(1, 4)):
        rng.choice(BLOCKS)(draft)
    # Drawn apart, so that all else of a seed is as it is without.
    apart = random.Random(-1 - seed)
    hidden = apart.random() < 0.04
    if hidden:
        draft.say(apart.choice(HIDDEN))
    draft.say("x = x.flatten(1)")
    flat = draft.channels * draft.side**dimensions
    if rng.random() < 0.6:
        draft.say(f"x = F.relu({draft.module(f'nn.Linear({flat}, 8)')}(x))")
        flat = 8
    heads = [draft.module(f"nn.Linear({flat}, {rng.choice([1, 2])})") for _ in range(rng.choice([1, 1, 2]))]
    outs = [f"{head}(x)" for head in heads]
    if len(outs) > 1:
        outs[1] = f"torch.relu({outs[1]})"
    draft.say(f"return torch.cat([{', '.join(outs)}], 1)")
    lines = "\n".join(draft.body).split("\n")
    inner = "\n        "
    return (f"class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        "
            f"{inner.join(draft.init)}\n\n    def forward(self, x):\n        {inner.join(lines)}\n\n\n"
            f"SHAPE = {shape}\nHIDDEN = {hidden}\n")


def script(seed: int) -> str:
    """A program that builds the network of ``seed`` and its line, and traces it."""
    text = draw(seed)
    traced = "TRACED = torch.jit.trace(torch.relu, torch.ones(2))\n\n\n" if "TRACED" in text else ""
    return f'''import torch
from torch import nn
from torch.nn import functional as F

{traced}{text}
torch.manual_seed({seed})
model = Net().double().eval()
for module in model.modules():
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.running_mean.normal_(0, 0.3)
        module.running_var.uniform_(0.5, 2)
start, end = 2 * torch.randn(2, *SHAPE, dtype=torch.float64)
'''


def build(seed: int) -> tuple[torch.nn.Module, Tensor, Tensor, bool]:
    """The network of ``seed``, the two ends of its line, and whether some of its kinks are out of sight."""
    names: dict = {}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        exec(script(seed), names)
    return names["model"], names["start"], names["end"], names["HIDDEN"]


def refined_kinks(model, path, samples: int = 33) -> tuple[Tensor, Tensor]:
    """Times ``(K,)`` in order and jumps ``(K, m)`` of a piecewise-linear model over [0, 1], from values and slopes.

    The straight continuations of an interval's two ends meet at one time. Where the model is there as well, that
    is the interval's one kink; elsewhere the interval is cut there, or, every other time, in its middle.
    """
    t = torch.linspace(0, 1, samples, dtype=torch.float64)
    z, s = values_and_slopes(model, path, t)
    steep, high = float(s.abs().max()) + 1e-300, float(z.abs().max()) + 1e-300
    times, jumps = [], []
    ends = [t[:-1], z[:-1], s[:-1], t[1:], z[1:], s[1:]]
    for attempt in range(80):
        left, z0, s0, right, z1, s1 = ends
        width = (right - left)[:, None]
        slack = 1e-12 * high + 1e-10 * steep * width
        straight = (((s1 - s0).abs() <= 1e-10 * steep) & ((z0 + width * s0 - z1).abs() <= slack)).all(1)
        narrow = (width[:, 0] < 1e-11) & ~straight
        times.append(left[narrow])
        jumps.append((s1 - s0)[narrow])
        ends = [part[~straight & ~narrow] for part in ends]
        left, z0, s0, right, z1, s1 = ends
        if not len(left):
            break
        width = right - left
        most = (s1 - s0).abs().argmax(1, keepdim=True)
        a0, a1, b0, b1 = (part.gather(1, most)[:, 0] for part in (z0, z1, s0, s1))
        meet = (a1 - a0 - b1 * width) / (b0 - b1)
        inside = (meet > 0) & (meet < width) & (attempt % 2 == 0)
        meet = torch.where(inside, meet, width / 2)
        zm, sm = values_and_slopes(model, path, left + meet)
        slack = 1e-12 * high + 1e-10 * steep * width[:, None]
        kink = inside & ((zm - z0 - meet[:, None] * s0).abs() <= slack).all(1) & (
            (zm - z1 + (width - meet)[:, None] * s1).abs() <= slack).all(1)
        times.append((left + meet)[kink])
        jumps.append((s1 - s0)[kink])
        ends = [torch.cat(pair)[~kink.repeat(2)] for pair in (
            (left, left + meet), (z0, zm), (s0, sm), (left + meet, right), (zm, z1), (sm, s1))]
    times, order = torch.cat(times).sort()
    return times, torch.cat(jumps)[order]


def strays(times: Tensor, jumps: Tensor, others: Tensor, scale: float) -> int:
    """How many kinks, of those larger than rounding, have none of the others at their time."""
    times = times[jumps.abs().amax(1) > EXACT * scale] if len(times) else times
    if not len(times) or not len(others):
        return len(times)
    place = torch.searchsorted(others, times).clamp(1, max(1, len(others) - 1))
    near = [(times - others[(place - side).clamp(max=len(others) - 1)]).abs() for side in (0, 1)]
    return int((torch.minimum(*near) > ON_TIME).sum())


def disagreements(model, start: Tensor, end: Tensor):
    """What trace and brute force disagree on, in words; and the trace."""

    def path(t):
        return start + t.reshape(-1, *[1] * start.dim()) * (end - start)

    found = []
    trace = trace_line(model, start, end)
    if not trace.certified:
        found.append(f"not certified: {trace.gaps[:2]}")
    # Slopes inside every piece, by plain forward-mode AD: each jump at its time, none between two.
    edges = torch.cat([trace.times.new_zeros(1), trace.times, trace.times.new_ones(1)])
    _, slopes = values_and_slopes(model, path, (edges[1:] + edges[:-1]) / 2)
    scale = float(slopes.abs().max()) + 1e-300
    wide = edges.diff() > 1e-9
    both = wide[1:] & wide[:-1]
    off = (slopes.diff(dim=0) - trace.jumps).abs().amax(1)[both] if len(trace.times) else slopes.new_zeros(0)
    if len(off) and float(off.max()) > EXACT * scale:
        found.append(f"a jump differs by {float(off.max()) / scale:.1e} of the steepest slope")
    def agrees(exact):
        return bool(((trace.smp - exact).abs() <= EXACT * exact + 1e-9 * scale).all())

    times, jumps = refined_kinks(model, path)
    exact = jumps.abs().sum(0)
    agree = agrees(exact)
    if agree:
        missing, extra = strays(times, jumps, trace.times, scale), strays(trace.times, trace.jumps, times, scale)
        if missing or extra:
            found.append(f"{missing} kinks are not at a time of the trace, {extra} of the trace at none of theirs")
    for samples in (401, 8001):
        if agree:
            break
        # A bump between two points of the grid, flat at both, deceives whoever knows values and slopes alone.
        exact, _ = brute_smp(model, path, 1.0, samples=samples, depth=26)
        agree = agrees(exact)
    if not agree:
        found.append(f"traced SMP {trace.smp.tolist()}, by brute force {exact.tolist()}")
    return found, trace


def attribution_errors(model, start: Tensor, end: Tensor, trace) -> list[tuple[int, float]]:
    """Kinks and relative error of the SMP layer by layer, of every output that has `ENOUGH_KINKS`."""

    def path(t):
        return start + t.reshape(-1, *[1] * start.dim()) * (end - start)

    with warnings.catch_warnings():
        # A warning says that something was not counted: here everything can be.
        warnings.simplefilter("error")
        total = attribute(model, path, torch.linspace(0, 1, SAMPLES, dtype=torch.float64)).total
    kinks = (trace.jumps.abs() > 1e-9 * trace.jumps.abs().amax(0)).sum(0) if len(trace.times) else total.long() * 0
    return [(count, float(total[k] / trace.smp[k] - 1)) for k, count in enumerate(kinks.tolist())
            if count >= ENOUGH_KINKS]


def let_through(model, start: Tensor, end: Tensor) -> list[str]:
    """What measures a network without a word although some of its kinks are out of sight."""
    found = []
    try:
        if trace_line(model, start, end).certified:
            found.append("certified, with kinks out of sight")
    except ValueError:
        pass
    try:
        total = attribute(model, lambda t: start + t.reshape(-1, *[1] * start.dim()) * (end - start),
                          torch.linspace(0, 1, 5, dtype=torch.float64)).total
        found.append(f"layer by layer {total.tolist()}, with kinks out of sight")
    except ValueError:
        pass
    return found


def run(networks: int, first: int = 0, report=print, every: int = 1, seconds: float = float("inf")):
    """Draw and check networks; report what disagrees as scripts, and a summary.

    Returns
    -------
    failed : int
        How many networks' traces disagree with brute force or are not certified, are refused or warned of layer by
        layer, or are off there by more than `ATTRIBUTED` in an output of `MANY_KINKS`; and how many with kinks out of
        sight are measured all the same.
    errors : list[float]
        The relative error layer by layer of every output with `ENOUGH_KINKS`, of one network in ``every``.
    """
    failed, kinks, errors, wide, hidden, done, begin = 0, 0, [], 0, 0, 0, time.perf_counter()
    for seed in range(first, first + networks):
        if time.perf_counter() - begin > seconds:
            break
        done += 1
        found = []
        try:
            model, start, end, out_of_sight = build(seed)
            if out_of_sight:
                hidden += 1
                found = let_through(model, start, end)
            else:
                found, trace = disagreements(model, start, end)
                kinks += len(trace.times)
                if seed % every == 0:
                    seen = attribution_errors(model, start, end, trace)
                    errors += [error for _, error in seen]
                    off = max((abs(error) for count, error in seen if count >= MANY_KINKS), default=0.0)
                    if off > ATTRIBUTED:
                        wide += 1
                        found.append(f"layer by layer {off:.1%} off the trace")
        except Exception as problem:
            found.append(f"{type(problem).__name__}: {problem}")
        if found:
            failed += 1
            report(f"# seed {seed}: " + "; ".join(found))
            report(script(seed) + "\nfrom smpcore import trace_line\n\nprint(trace_line(model, start, end))\n")
    off = torch.tensor(errors or [0.0]).abs()
    report(f"{done} networks, {hidden} of them with kinks out of sight, {kinks} kinks: {failed} disagreements; layer "
           f"by layer, on {len(errors)} outputs of {ENOUGH_KINKS} kinks or more, {off.mean():.2%} off on average, "
           f"{off.max():.1%} at worst, {wide} with {MANY_KINKS} or more by over {ATTRIBUTED:.0%}; "
           f"{time.perf_counter() - begin:.0f} s")
    return failed, errors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--attribute-every", type=int, default=1, help="one network in so many, layer by layer too")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop drawing after so long")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.exit(1 if run(options.networks, options.first, every=options.attribute_every,
                 seconds=options.seconds)[0] else 0)
