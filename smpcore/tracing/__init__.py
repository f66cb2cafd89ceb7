"""Every kink of a piecewise-linear model on a straight line, with a certificate."""

from smpcore.tracing.trace import LineTrace, trace_line

__all__ = ["LineTrace", "trace_line"]
