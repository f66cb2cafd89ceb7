<<<<<<< HEAD
"""Paths: inputs as functions of time, along which a network's output is measured.

A path is any differentiable torch function of time, ``path(t: (P,)) -> (P, *input_shape)``. Slopes are taken
through it by forward-mode AD, so that a path of your own needs no derivative:

    def path(t):                        # two inputs a and b, mixed back and forth
        s = torch.sin(t)[:, None] ** 2
        return (1 - s) * a + s * b

A path that knows its slope may have a method ``slope(t: (P,)) -> (P, *input_shape)`` as well (`PathWithSlope`), which
gives dx/dt without AD: `line`, `circle` and `circle_through` have it.

The paths here are smooth (at least twice continuously differentiable), so that every kink behind them is the
network's. Each computes in the type and on the device of ``t``; give float64, for in float32 the rounding of
``t`` alone looks like kinks.

- `line`, `circle`, `circle_through`: straight and round, in the space of inputs.
- `picture`: a crop that pans, zooms and turns over a photograph (`load_picture` reads one).
- `blob`, `ellipsoid`: synthetic scenes whose parameters are known, with `render_blobs`, `render_ellipsoids`.
"""
=======
"""Paths: inputs as functions of time, along which a network's output is measured."""
>>>>>>> main

from smpcore.paths.crops import PicturePath, picture
from smpcore.paths.lines import CirclePath, LinePath, PathWithSlope, circle, circle_through, line
from smpcore.paths.photographs import load_picture
from smpcore.paths.scenes import BlobPath, EllipsoidPath, blob, ellipsoid, render_blobs, render_ellipsoids
from smpcore.paths.splines import SplinePath, through

__all__ = [
<<<<<<< HEAD
    "BlobPath", "CirclePath", "EllipsoidPath", "LinePath", "PathWithSlope", "PicturePath", "blob", "circle",
    "circle_through", "ellipsoid", "line", "load_picture", "picture", "render_blobs", "render_ellipsoids",
=======
    "BlobPath", "CirclePath", "EllipsoidPath", "LinePath", "PicturePath", "SplinePath", "blob", "circle",
    "circle_through", "ellipsoid", "line", "load_picture", "picture", "render_blobs", "render_ellipsoids", "through",
>>>>>>> main
]
