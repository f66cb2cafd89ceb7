"""Every kink of a piecewise-linear model on a straight line, with a certificate, and what follows from knowing all."""

from smpcore.tracing.gradients import integrated_gradients
from smpcore.tracing.planes import PlaneTrace, trace_plane
from smpcore.tracing.trace import LineTrace, trace_line
from smpcore.tracing.variation import Ball, Box, TotalVariation, total_variation

__all__ = ["Ball", "Box", "LineTrace", "PlaneTrace", "TotalVariation", "integrated_gradients", "total_variation",
           "trace_line", "trace_plane"]
