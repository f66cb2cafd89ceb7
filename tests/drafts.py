"""Random architectures, each drawn from its seed as source text."""

import random
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

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
        self.init, self.body, self.count, self.loose = [], [], 0, False

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


def opposite_branches(draft: Draft) -> None:
    """Units of x and of -x, which switch at the same moment."""
    slope = draft.rng.choice(["0.25", "0.9", "1.0"])
    draft.say(draft.rng.choice([
        f"x = F.relu(x) - {slope} * F.relu(-x)", f"x = (F.relu(x) - {slope} * F.relu(-x)).abs()",
        f"x = torch.maximum(F.relu(x), {slope} * F.relu(-x))", "x = F.leaky_relu(x, 0.5) + torch.relu(-x)",
        f"x = F.relu(F.softshrink(x, 0.1) - {slope} * F.relu(-x))"]))
    if draft.rng.random() < 0.5:
        act(draft)


def grouped(draft: Draft) -> None:
    d = draft.dimensions
    if not d:
        return layer(draft)
    groups = draft.rng.choice([1, draft.channels])
    dilation = draft.rng.choice([1, 2])
    out = draft.channels * draft.rng.choice([1, 2]) if draft.channels < 4 else draft.channels
    options = f"padding={dilation}, groups={groups}, dilation={dilation}"
    draft.say(f"x = {draft.module(f'nn.Conv{d}d({draft.channels}, {out}, 3, {options})')}(x)")
    draft.channels = out
    act(draft)
    return None


def concatenated(draft: Draft) -> None:
    first, second = draft.conv(), draft.conv()
    draft.say(f"x = torch.cat([{activation(draft, f'{first}(x)')}, {activation(draft, f'{second}(x)')}, x], 1)")
    draft.channels *= 3
    reduce = draft.conv(draft.channels // 3)
    draft.channels //= 3
    draft.say(f"x = {reduce}(x)")


def of_branches(draft: Draft) -> None:
    """The smaller or larger of two branches, and a choice between them that does not depend on the input."""
    first, second = draft.conv(), draft.conv()
    draft.say(f"a, b = {activation(draft, f'{first}(x)')}, {second}(x)")
    draft.say(draft.rng.choice([
        "x = torch.minimum(a, b)", "x = torch.maximum(a, b) + x", "x = torch.min(a, b) - torch.max(a, x)",
        "x = torch.where(torch.arange(a[0].numel()).view_as(a[:1]) % 3 > 0, a, b)", "x = torch.fmin(a, 0.2 + b)",
        "x = torch.stack([a, b, x]).amax(0)", "x = torch.lerp(a, b, 0.3).relu()"]))


def bounded(draft: Draft) -> None:
    """A clamp whose bounds are tensors, one for each channel."""
    low = draft.module(f"nn.Parameter(-torch.rand({draft.channels}, *[1] * {draft.dimensions}))")
    high = draft.module(f"nn.Parameter(torch.rand({draft.channels}, *[1] * {draft.dimensions}))")
    draft.say(draft.rng.choice([f"x = torch.clamp(x, {low}, {high})", f"x = x.clamp(min={low})",
                                f"x = torch.clamp(x, max={high})"]))


def reshaped(draft: Draft) -> None:
    """Views, expansions and transpositions, read, computed with and written into."""
    draft.say("x = x * 1")
    draft.say(draft.rng.choice([
        "x.split(1, 1)[0].relu_()", "x.chunk(2, 1)[-1].mul_(-0.5)", "x.unbind(1)[0].clamp_(min=-0.1)",
        "y = x.transpose(0, 1)\ny[0].relu_()", "x[:, -1] = torch.relu(x[:, 0])", "x.select(1, 0).add_(x[:, -1].relu())",
        "x = x.unsqueeze(1).expand(-1, 2, *x.shape[1:]).relu() * torch.ones(2, *x.shape[1:]).to(x)\nx = x.sum(1)",
        "x = x.movedim(1, -1).contiguous().relu().movedim(-1, 1) * 1.",
        "y = torch.arange(3.).to(x).view(3, *[1] * (x.dim() - 2))\n"
        "x = (x.relu().unsqueeze(2).expand(*x.shape[:2], 3, *x.shape[2:]) * y).amax(2)",
        "x = x.flatten(1).relu().unflatten(1, x.shape[1:])", "x = x.flip(1).relu().roll(1, 1)"]))


def gated(draft: Draft) -> None:
    """What no measurement follows, or what jumps: to be refused, or right."""
    draft.loose = True
    draft.say(f"y = {draft.conv()}(x)")
    draft.say(draft.rng.choice([
        "x = x * F.hardsigmoid(y)", "x = x * (y > 0)", "x = torch.where(y > 0.1, x, 0.2 * x)",
        "x = x * torch.sigmoid(y)",
        "x = x * (0.5 + 0.5 * torch.sign(y))", "x = x + 0.3 * torch.sign(y)",
        "x = x + torch.where(torch.isclose(y, torch.full_like(y, 0.1), atol=0.003), 0.003 - (y - 0.1).abs(), 0.)",
        "x = x.masked_fill(y < -0.3, 0.)"]))


#: Blocks whose units switch together or stand in more than one branch, and operations that are ordinary beside these.
COMPOSED = [*BLOCKS, *2 * [opposite_branches, grouped, concatenated, of_branches, bounded, reshaped], gated]


def draw(seed: int, composed: bool = False) -> str:
    """The source text of one network: a class ``Net``, and the shape of its input.

    ``composed`` draws from `COMPOSED`, deeper; LOOSE tells whether it holds what may be refused.
    """
    rng = random.Random(f"composed {seed}" if composed else seed)
    dimensions = rng.choice([0, 1, 1, 2, 2, 2, 3])
    side = (1, 8, 5, 3)[dimensions]
    channels = rng.choice([1, 2]) if dimensions else 6
    shape = (channels, *[side] * dimensions)
    draft = Draft(rng, dimensions, channels, side)
    layer(draft)
    for _ in range(rng.randint(2, 5) if composed else rng.randint(1, 4)):
        rng.choice(COMPOSED if composed else BLOCKS)(draft)
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
            f"SHAPE = {shape}\nHIDDEN = {hidden}\nLOOSE = {draft.loose}\n")


def script(seed: int, composed: bool = False) -> str:
    """A program that builds the network of ``seed`` and its line, and traces it."""
    text = draw(seed, composed)
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


def build(seed: int, composed: bool = False) -> tuple[torch.nn.Module, Tensor, Tensor, bool, bool]:
    """The network of ``seed``, the ends of its line, whether kinks are out of sight, and whether it may be refused."""
    names: dict = {}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        exec(script(seed, composed), names)
    return names["model"], names["start"], names["end"], names["HIDDEN"], names["LOOSE"]
