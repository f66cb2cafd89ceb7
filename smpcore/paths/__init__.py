"""Paths: functions of time, (P,) -> (P, *input_shape), along which a network's output is measured (`times`)."""

from smpcore.paths.crops import PicturePath, picture
from smpcore.paths.lines import CirclePath, LinePath, circle, circle_through, line
from smpcore.paths.photographs import load_picture
from smpcore.paths.scenes import BlobPath, EllipsoidPath, blob, ellipsoid, render_blobs, render_ellipsoids
from smpcore.paths.splines import SplinePath, through
from smpcore.paths.times import PathWithSlope

__all__ = [
    "BlobPath", "CirclePath", "EllipsoidPath", "LinePath", "PathWithSlope", "PicturePath", "SplinePath", "blob",
    "circle", "circle_through", "ellipsoid", "line", "load_picture", "picture", "render_blobs", "render_ellipsoids",
    "through",
]
