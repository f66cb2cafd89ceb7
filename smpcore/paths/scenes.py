"""Synthetic scenes whose parameters are known exactly: a moving, turning blob, and a shaded ellipsoid.

Both are infinitely smooth in their parameters: no edge, no clipped shading, nothing that could add a kink.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from smpcore.paths.checks import MOST_PIXELS, are_numbers, is_number, is_whole
from smpcore.paths.times import path_times

__all__ = ["BlobPath", "EllipsoidPath", "blob", "ellipsoid", "render_blobs", "render_ellipsoids"]


def render_blobs(position: torch.Tensor, angle: torch.Tensor, *, size: int = 32,
                 axes: tuple[float, float] = (0.16, 0.08)) -> torch.Tensor:
    """Elongated Gaussian blobs, one in each picture.

    Parameters
    ----------
    position
        (P, 2): x to the right and y downwards, as fractions of the picture.
    angle
        (P,): how far the long axis is turned, in radians.
    size
        Pixels on a side.
    axes
        Standard deviations along and across the blob, as fractions of the picture.

    Returns
    -------
    Tensor
        (P, 1, size, size), grey values in (0, 1].

    Raises
    ------
    ValueError
        For positions that are not (P, 2), angles that are not (P,), a size under 2, an axis that is not
        positive.
    TypeError
        For anything but floating tensors.
    """
    _check_scene({"position": position, "angle": angle}, ((2,), ()), size, axes, 2)
    grid = _pixel_centres(size, position)
    across = grid[None, None, :] - position[:, 0, None, None]
    down = grid[None, :, None] - position[:, 1, None, None]
    cosine, sine = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    along, aside = cosine * across + sine * down, cosine * down - sine * across
    return torch.exp(-0.5 * ((along / axes[0]) ** 2 + (aside / axes[1]) ** 2))[:, None]


def render_ellipsoids(angles: torch.Tensor, *, size: int = 32,
                      axes: tuple[float, float, float] = (0.75, 0.5, 0.3),
                      light: tuple[float, float, float] = (-0.5, -0.6, 0.62)) -> torch.Tensor:
    """Shaded ellipsoids seen from the front, turned by two angles.

    The outline fades within about two pixels (a logistic function of how deep the ray enters), and the
    shading is ((1 + n·l)/2)², without the corner that Lambert's max(0, n·l) has at the shadow's edge.

    Parameters
    ----------
    angles
        (P, 2): turn about the vertical axis, then about the horizontal one, in radians. An ellipsoid looks
        the same after half a turn about an axis of its own: keep the first within ±π/2.
    size
        Pixels on a side; the picture spans [−1, 1] both ways.
    axes
        The three half-axes.
    light
        Towards the light: right, down, towards the viewer.

    Returns
    -------
    Tensor
        (P, 1, size, size), grey values in (0, 1).

    Raises
    ------
    ValueError
        For angles that are not (P, 2), a size under 2, an axis that is not positive, light without a direction.
    TypeError
        For anything but floating tensors.
    """
    _check_scene({"angles": angles}, ((2,),), size, axes, 3)
    if not are_numbers(light, 3) or not any(is_number(abs(part), above=0) for part in light):
        raise ValueError(f"light = {light!r}: a direction is three finite numbers, not all 0")
    turn = _rotation(angles[:, 0], angles[:, 1])
    # The body is {p : p·M p < 1}, M = R diag(1/a²) Rᵀ.
    scale = torch.tensor([1 / a**2 for a in axes], dtype=angles.dtype, device=angles.device)
    form = torch.einsum("pij,j,pkj->pik", turn, scale, turn)
    grid = 2 * _pixel_centres(size, angles) - 1
    x, y = grid[None, None, :], grid[None, :, None]
    m = {(i, j): form[:, i, j, None, None] for i in range(3) for j in range(i, 3)}
    # Along a ray the form is least at this depth; the front surface is nearer by the root of what is left.
    middle = -(m[0, 2] * x + m[1, 2] * y) / m[2, 2]
    left = 1 - (m[0, 0] * x**2 + 2 * m[0, 1] * x * y + m[1, 1] * y**2 - m[2, 2] * middle**2)
    sharpness = 0.25 * size  # one pixel is 2/size wide and `left` falls by about 4 a unit at the outline
    inside = torch.sigmoid(sharpness * left)
    depth = middle + torch.sqrt(torch.nn.functional.softplus(sharpness * left, threshold=1e6) / sharpness
                                / m[2, 2])
    normal = torch.stack([
        m[0, 0] * x + m[0, 1] * y + m[0, 2] * depth,
        m[0, 1] * x + m[1, 1] * y + m[1, 2] * depth,
        m[0, 2] * x + m[1, 2] * y + m[2, 2] * depth,
    ])
    towards = torch.tensor(light, dtype=angles.dtype, device=angles.device)
    towards = towards / towards.norm()
    cosine = (normal * towards[:, None, None, None]).sum(0) / torch.sqrt((normal**2).sum(0) + 1e-12)
    return (inside * ((1 + cosine) / 2) ** 2)[:, None]


@dataclass(frozen=True)
class BlobPath:
    """The blob on a closed loop, turning as it goes; see `blob`."""

    size: int
    reach: tuple[float, float]
    turns: float
    axes: tuple[float, float]

    def position(self, t: torch.Tensor) -> torch.Tensor:
        """Where it is: (P, 2), x and y as fractions of the picture. What a regressor should answer."""
        right, down = self.reach
        return torch.stack([0.5 + right * torch.sin(t), 0.5 + down * torch.sin(2 * t)], dim=1)

    def angle(self, t: torch.Tensor) -> torch.Tensor:
        """How far it is turned: (P,), radians."""
        return self.turns * t

    def __call__(self, t: torch.Tensor) -> torch.Tensor:
        t = path_times(t)
        return render_blobs(self.position(t), self.angle(t), size=self.size, axes=self.axes)


@dataclass(frozen=True)
class EllipsoidPath:
    """The ellipsoid nodding and shaking; see `ellipsoid`."""

    size: int
    reach: tuple[float, float]
    axes: tuple[float, float, float]

    def angles(self, t: torch.Tensor) -> torch.Tensor:
        """(P, 2): the two angles in radians. What a regressor should answer."""
        return torch.stack([self.reach[0] * torch.sin(t), self.reach[1] * torch.sin(2 * t + 0.5)], dim=1)

    def __call__(self, t: torch.Tensor) -> torch.Tensor:
        return render_ellipsoids(self.angles(path_times(t)), size=self.size, axes=self.axes)


def blob(*, size: int = 32, reach: tuple[float, float] = (0.25, 0.2), turns: float = 1.0,
         axes: tuple[float, float] = (0.16, 0.08)) -> BlobPath:
    """A blob that runs round a figure of eight and turns, t in [0, 2π].

    ``path(t)`` gives the pictures, (P, 1, size, size); ``path.position(t)`` what a regressor of positions
    should answer; `render_blobs` draws any others, to train on.

    Parameters
    ----------
    size
        Pixels on a side.
    reach
        How far from the middle it goes, right and down, as fractions of the picture.
    turns
        Turns of the blob on one round.
    axes
        Standard deviations along and across it, as fractions of the picture.

    Raises
    ------
    ValueError
        For a size under 2, an axis that is not positive, a motion that is not finite.
    """
    _check_view(size, axes, 2)
    if not are_numbers(reach, 2) or not is_number(turns):
        raise ValueError(f"reach = {reach!r}, turns = {turns!r}: two finite numbers and one are needed")
    return BlobPath(size, tuple(reach), float(turns), tuple(axes))


def ellipsoid(*, size: int = 32, reach: tuple[float, float] = (0.9, 0.6),
              axes: tuple[float, float, float] = (0.75, 0.5, 0.3)) -> EllipsoidPath:
    """A shaded ellipsoid that shakes and nods, t in [0, 2π].

    ``path(t)`` gives the pictures, (P, 1, size, size); ``path.angles(t)`` the two angles behind them;
    `render_ellipsoids` draws any others.

    Parameters
    ----------
    size
        Pixels on a side.
    reach
        The largest angles about the vertical and the horizontal axis, in radians.
    axes
        The three half-axes; the picture spans [−1, 1].

    Raises
    ------
    ValueError
        As `blob`.
    """
    _check_view(size, axes, 3)
    if not are_numbers(reach, 2):
        raise ValueError(f"reach = {reach!r}: two finite numbers are needed, in radians")
    return EllipsoidPath(size, tuple(reach), tuple(axes))


def _pixel_centres(size: int, like: torch.Tensor) -> torch.Tensor:
    """Where the pixels' centres are, as fractions of the picture."""
    return (torch.arange(size, dtype=like.dtype, device=like.device) + 0.5) / size


def _rotation(yaw: torch.Tensor, pitch: torch.Tensor) -> torch.Tensor:
    """(P, 3, 3): first about the vertical axis (y), then about the horizontal one (x)."""
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    cy, sy, cx, sx = torch.cos(yaw), torch.sin(yaw), torch.cos(pitch), torch.sin(pitch)
    about_y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], dim=1).reshape(-1, 3, 3)
    about_x = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], dim=1).reshape(-1, 3, 3)
    return about_x @ about_y


def _check_scene(named: dict[str, torch.Tensor], widths: Sequence[tuple[int, ...]], size: int,
                 axes: Sequence[float], count: int) -> None:
    """Refuse parameters that are not floating tensors (P, *width), and what `_check_view` refuses."""
    for name, value in named.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise TypeError(f"{name} is a floating torch tensor, not {kind}")
    rows = next(iter(named.values())).shape[:1]
    if not rows or any(value.shape != (*rows, *width) for value, width in zip(named.values(), widths, strict=True)):
        listed = ", ".join(f"{name} {tuple(value.shape)}" for name, value in named.items())
        wanted = ", ".join(str(("P", *width)).replace("'", "") for width in widths)
        raise ValueError(f"{listed}: the parameters of a scene have one row for each picture, {wanted}")
    _check_view(size, axes, count)


def _check_view(size: int, axes: Sequence[float], count: int) -> None:
    if not is_whole(size, 2) or size > MOST_PIXELS:
        raise ValueError(f"size = {size!r}: a whole number of pixels on a side, from 2 to {MOST_PIXELS}, is needed")
    if not are_numbers(axes, count, above=0):
        raise ValueError(f"axes = {axes!r}: {count} numbers are needed, each positive")
