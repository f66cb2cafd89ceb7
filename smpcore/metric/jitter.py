"""How jittery a sampled curve is: slope variation at a stated step, and the measures of pose and movement research.

They measure something else than SMP. SMP is a property of the curve and does not depend on how finely it is sampled;
a video shows the curve at its frame rate only, kinks and smooth bends alike. With the spacing h, and on a curve that
has kinks, the measures depend on the frame rate 1/h as follows:

==========================  =============================  ========================
measure                     unit                           where kinks are resolved
==========================  =============================  ========================
`slope_variation`           units per t                    tends to SMP + ∫|z″|dt
`acceleration_error`        units per t²                   tends to a constant
the same, ``spacing=1``     units per frame²               falls as h²
`mean_jerk`                 units per t³                   grows as 1/h
`log_dimensionless_jerk`    none                           falls by 3 ln 2 for h/2
==========================  =============================  ========================

On a smooth curve all but the per-frame figure tend to a constant. Signals are read without their graph, and a result
has the kind, device and floating type of the signal; everything is computed in float64.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from smpcore.metric.checks import as_tensor, check_samples, check_spacing, scaled

__all__ = ["acceleration_error", "log_dimensionless_jerk", "mean_jerk", "slope_variation"]

Signal = Tensor | np.ndarray


def slope_variation(signal: Signal, spacing: float = 1.0, step: float | None = None) -> Signal:
    """Σ|Δ²z|/h at a stated step h: the change of slope that a video with one frame every h shows.

    At the step h = m · spacing the samples are m interleaved signals, every m-th sample from each of the first m; the
    result is the mean of their sums. It never exceeds SMP + ∫|z″|dt, the total variation of the slope, does not fall
    when the step is halved, and tends to that total as the step goes to 0. For a piecewise-linear curve that total is
    SMP, and the sum reaches it where no two kinks share two neighbouring intervals (and none lies within h of an end).

    Parameters
    ----------
    signal
        ``(..., N)``, evenly spaced in its last dimension.
    spacing
        Units of t from one sample to the next.
    step
        h, a whole multiple of the spacing, in units of t; None for the spacing itself. N is at least 3 h/spacing.

    Returns
    -------
    Tensor or ndarray
        ``(...)``, signal units per unit of t.

    Raises
    ------
    TypeError, ValueError
        As `smpcore.smp`, and for a step that is no multiple of the spacing.
    """
    check_spacing(spacing)
    if step is not None:
        check_spacing(step, "step")
    multiple = 1.0 if step is None else float(step) / float(spacing)
    lag = round(multiple)
    if lag < 1 or abs(multiple - lag) > 1e-6 * lag:
        raise ValueError(f"step = {step!r} is {multiple:g} times the spacing {spacing!r}: a whole multiple is needed")
    values, give_back = _read(signal, spacing, 3 * lag, f"a step of {lag} samples")
    change = values[..., 2 * lag:] - 2 * values[..., lag:-lag] + values[..., :-2 * lag]
    return give_back(change.abs().sum(-1) / (lag**2 * float(spacing)))


def acceleration_error(signal: Signal, truth: Signal, spacing: float = 1.0) -> Signal:
    """Mean |Δ²(z − truth)|/h²: how far the signal's acceleration is from that of the true motion.

    A. Zeng et al., "SmoothNet", ECCV 2022, as "Accel", where the unit is the frame (``spacing=1``) and each joint's
    error is the length of a vector; here every coordinate is a signal by itself. With the spacing in units of t it
    tends to the error's slope variation divided by its duration. In units of the frame it falls as the square of the
    spacing, so that figures of two frame rates cannot be compared.

    Parameters
    ----------
    signal, truth
        ``(..., N)`` of one shape, N at least 3.
    spacing
        Units of t from one sample to the next.

    Returns
    -------
    Tensor or ndarray
        ``(...)``, signal units per unit of t squared.

    Raises
    ------
    TypeError, ValueError
        As `smpcore.smp`, and for two shapes that differ.
    """
    values, give_back = _read(signal, spacing, 3, "an acceleration")
    true, _ = _read(truth, spacing, 3, "an acceleration")
    if values.shape != true.shape:
        raise ValueError(f"signal {tuple(values.shape)} and truth {tuple(true.shape)} differ in shape")
    return give_back((values - true.to(values.device)).diff(n=2).abs().mean(-1) / float(spacing) ** 2)


def mean_jerk(signal: Signal, spacing: float = 1.0) -> Signal:
    """Mean |Δ³z|/h³: the mean magnitude of the jerk, the third derivative.

    T. Flash and N. Hogan, J. Neuroscience 5 (1985), take jerk as the measure of smooth movement. At a kink with jump J
    the third differences over h³ sum to between |J|/h² and 2|J|/h², so that the mean grows in proportion to the frame
    rate, without limit: it says as much about the sampling as about the motion.

    Parameters
    ----------
    signal
        ``(..., N)``, N at least 4.
    spacing
        Units of t from one sample to the next.

    Returns
    -------
    Tensor or ndarray
        ``(...)``, signal units per unit of t cubed.

    Raises
    ------
    TypeError, ValueError
        As `smpcore.smp`.
    """
    values, give_back = _read(signal, spacing, 4, "a jerk")
    return give_back(values.diff(n=3).abs().mean(-1) / float(spacing) ** 3)


def log_dimensionless_jerk(signal: Signal, spacing: float = 1.0) -> Signal:
    """−ln(D³/v² · ∫ z‴² dt), D the duration and v the largest speed: larger (nearer to 0) for smoother movements.

    S. Balasubramanian, A. Melendez-Calderon and E. Burdet, IEEE Trans. Biomed. Eng. 59 (2012); S. Balasubramanian
    et al., J. NeuroEng. Rehabil. 12 (2015). They start from a speed profile, here taken as the first differences over
    h, with their sign: D = (N − 1) h, and the integral is the sum of squared third differences over h⁵. It depends on
    neither the unit of the signal nor that of t. At each kink the integral holds about J²/h³, so that on a curve with
    kinks the result falls by 3 ln 2 = 2.08 whenever the frame rate doubles.

    Parameters
    ----------
    signal
        ``(..., N)``, N at least 4.
    spacing
        Units of t from one sample to the next.

    Returns
    -------
    Tensor or ndarray
        ``(...)``, without a unit.

    Raises
    ------
    TypeError, ValueError
        As `smpcore.smp`, and for a signal whose third differences are all 0.
    """
    values, give_back = _read(signal, spacing, 4, "a jerk")
    # The spacing cancels, and so does a power of 2 that keeps squares within the range of float64.
    rows, *_ = scaled(values.reshape(-1, values.shape[-1]))
    jerk, speed = (rows.diff(n=order).reshape(*values.shape[:-1], values.shape[-1] - order) for order in (3, 1))
    if (still := ~jerk.any(-1)).any():
        index = f" {still.nonzero()[0].tolist()}" if still.dim() else ""
        raise ValueError(f"signal{index} has no jerk (it is at rest, or its acceleration never changes): the "
                         "logarithm of its jerk is not defined")
    share = jerk / speed.abs().amax(-1, keepdim=True)
    return give_back(-3 * math.log(values.shape[-1] - 1) - share.square().sum(-1).log())


def _read(signal: Signal, spacing: float, least: int, purpose: str) -> tuple[Tensor, Callable[[Tensor], Signal]]:
    """The signal in float64, checked, and a function that turns a result into the signal's kind."""
    values, give_back = as_tensor(signal)
    check_spacing(spacing)
    check_samples(values, least, purpose)
    return values.to(torch.float64), give_back
