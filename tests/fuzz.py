"""Random architectures, measured in three ways that must agree: trace, brute force, layer by layer.

    python tests/fuzz.py --networks 5000

Each network is drawn from its seed as *source text*, so that a disagreement is printed as a script that
reproduces it. Exit status 1 where there was one.
"""

import argparse
import sys
import time
import warnings

import torch
from brute import brute_smp, values_and_slopes
from drafts import build, script
from torch import Tensor

from smpcore import attribute, trace_line

#: Samples of the path for the measurement layer by layer.
SAMPLES = 401
#: Its error on one output is that of reading gains beside the kink, not at it; few kinks average little out. Errors
#: count from so many kinks, and none may exceed 8% from so many.
ENOUGH_KINKS, MANY_KINKS, ATTRIBUTED = 30, 100, 0.08
#: The trace is exact: rounding alone, in jumps as parts of the steepest slope, in times as parts of the line.
EXACT, ON_TIME = 1e-6, 1e-7


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


def disagreements(model, start: Tensor, end: Tensor, loose: bool = False):
    """What trace and brute force disagree on, in words; and the trace. A ``loose`` network may be refused."""

    def path(t):
        return start + t.reshape(-1, *[1] * start.dim()) * (end - start)

    found = []
    trace = trace_line(model, start, end)
    if loose and not trace.certified:
        return found, trace
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
    # Slopes at any points bound the SMP from below: a bump that a grid misses is real if they show it.
    if not agree and not agrees(torch.maximum(exact, slopes.diff(dim=0).abs().sum(0))):
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


def run(networks: int, first: int = 0, report=print, every: int = 1, seconds: float = float("inf"),
        composed: bool = False):
    """Draw and check networks; report what disagrees as scripts, and a summary.

    ``every``: one network in so many is measured layer by layer as well, none where it is 0. ``composed``: networks of
    `drafts.COMPOSED`, of which some may be refused, but none measured wrongly.

    Returns
    -------
    failed : int
        How many networks' traces disagree with brute force or are not certified, are refused or warned of layer by
        layer, or are off there by more than `ATTRIBUTED` in an output of `MANY_KINKS`; and how many with kinks out of
        sight are measured all the same.
    errors : list[float]
        The relative error layer by layer of every output with `ENOUGH_KINKS`, of one network in ``every``.
    """
    failed, kinks, errors, wide, hidden, refused, done, begin = 0, 0, [], 0, 0, 0, 0, time.perf_counter()
    for seed in range(first, first + networks):
        if time.perf_counter() - begin > seconds:
            break
        done += 1
        found = []
        try:
            model, start, end, out_of_sight, loose = build(seed, composed)
            if out_of_sight:
                hidden += 1
                found = let_through(model, start, end)
            else:
                found, trace = disagreements(model, start, end, loose)
                kinks += len(trace.times)
                refused += loose and not trace.certified
                if every and seed % every == 0 and trace.certified:
                    seen = []
                    try:
                        seen = attribution_errors(model, start, end, trace)
                    except ValueError as problem:  # a mask that the trace could follow
                        if not loose or "a mask or an index" not in str(problem):
                            raise
                        refused += 1
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
            report(script(seed, composed)
                   + "\nfrom smpcore import trace_line\n\nprint(trace_line(model, start, end))\n")
    off = torch.tensor(errors or [0.0]).abs()
    report(f"{done} networks, {hidden} of them with kinks out of sight, {refused} refused as they may be, {kinks} "
           f"kinks: {failed} disagreements; layer by layer, on {len(errors)} outputs of {ENOUGH_KINKS} kinks or more, "
           f"{off.mean():.2%} off on average, {off.max():.1%} at worst, {wide} with {MANY_KINKS} or more by over "
           f"{ATTRIBUTED:.0%}; {time.perf_counter() - begin:.0f} s")
    return failed, errors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--attribute-every", type=int, default=1, help="one network in so many, layer by layer too")
    parser.add_argument("--composed", action="store_true", help="units that switch together, in branches")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop drawing after so long")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.exit(1 if run(options.networks, options.first, every=options.attribute_every,
                 seconds=options.seconds, composed=options.composed)[0] else 0)
