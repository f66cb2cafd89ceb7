"""Every kink of a piecewise-linear model on a straight line, with a certificate, and what follows from knowing all."""

from smpcore.tracing.gradients import integrated_gradients
from smpcore.tracing.trace import LineTrace, trace_line

__all__ = ["LineTrace", "integrated_gradients", "trace_line"]
