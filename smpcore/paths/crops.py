"""A crop that pans, zooms and turns over a photograph, resampled so smoothly that it adds no kink.

Bilinear resampling has a kink at every pixel border and Keys' bicubic a continuous slope only; cubic
B-splines are twice continuously differentiable (M. Unser, IEEE Signal Processing Magazine 16(6), 1999).
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage

from smpcore.paths.checks import are_numbers, image_size, is_number
from smpcore.paths.photographs import Source, load_picture
from smpcore.paths.times import path_times, placed

__all__ = ["PicturePath", "picture"]

# Where one pixel of the crop spans this many of the picture, blocks of the picture are averaged first, because the
# prefilter would be wide and slow. It removes anything finer in any case.
_REDUCE_FROM, _REDUCE_TO = 8.0, 4.0


@dataclass(frozen=True)
class PicturePath:
    """A moving crop of a picture; make one with `picture`.

    Attributes
    ----------
    pixels
        The picture, (C, H, W), as it was given.
    box
        [left, top, right, bottom] of the crop at rest, in pixels of the picture.
    size
        (height, width) of the crop that the network sees.
    pan, zoom, turn
        Functions of t: (P, 2) pixels right and down, (P,) magnification, (P,) radians clockwise as seen; turn
        is None where the crop never turns.
    """

    pixels: torch.Tensor = field(repr=False)
    box: tuple[float, float, float, float]
    size: tuple[int, int]
    pan: Callable[[torch.Tensor], torch.Tensor]
    zoom: Callable[[torch.Tensor], torch.Tensor]
    turn: Callable[[torch.Tensor], torch.Tensor] | None
    coefficients: torch.Tensor = field(repr=False)
    reduced: int

    def __call__(self, t: torch.Tensor) -> torch.Tensor:
        """The crops, (P, C, height, width), normalised as `picture` was told."""
        t = path_times(t)
        height, width = self.size
        right = ((torch.arange(width, dtype=t.dtype, device=t.device) + 0.5) / width)[None, None, :]
        down = ((torch.arange(height, dtype=t.dtype, device=t.device) + 0.5) / height)[None, :, None]
        if self.turn is not None:  # else columns and rows move on their own, and weights are few
            right, down = torch.broadcast_tensors(right, down)
        x, y = self._place(t, right, down)
        # The picture's edges are at 0 and W; its first pixel's centre, the spline's knot 0, at one half.
        return _spline(placed(self.coefficients, t), x / self.reduced - 0.5, y / self.reduced - 0.5)

    def to_picture(self, t: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Points of the crops in pixels of the picture, to draw them there.

        Parameters
        ----------
        t
            (P,), the times.
        points
            (P, K, 2) or (K, 2): x and y as fractions of the crop.

        Returns
        -------
        Tensor
            (P, K, 2): x and y from the picture's left and top edge.
        """
        path_times(t)
        found = tuple(points.shape) if isinstance(points, torch.Tensor) else type(points).__name__
        if len(found) not in (2, 3) or found[-1] != 2 or found[:-2] not in ((), (len(t),)):
            raise ValueError(f"points has to be a tensor (K, 2), or ({len(t)}, K, 2) for these times, not {found}")
        points = points.expand(len(t), *points.shape[-2:])
        x, y = self._place(t, points[:, None, :, 0], points[:, None, :, 1])
        return torch.stack([x[:, 0], y[:, 0]], dim=-1)

    def _place(self, t: torch.Tensor, right: torch.Tensor, down: torch.Tensor):
        left, top, far, bottom = self.box
        pan, zoom = _moved("pan", self.pan, t, 2)[:, :, None, None], _moved("zoom", self.zoom, t)[:, None, None]
        x, y = (right - 0.5) * (far - left) / zoom, (down - 0.5) * (bottom - top) / zoom
        if self.turn is not None:
            angle = _moved("turn", self.turn, t)[:, None, None]
            x, y = torch.cos(angle) * x - torch.sin(angle) * y, torch.sin(angle) * x + torch.cos(angle) * y
        return x + (left + far) / 2 + pan[:, 0], y + (top + bottom) / 2 + pan[:, 1]


def picture(source: Source, box: Sequence[float] | None = None, *, size: int | tuple[int, int] = 48,
            pan: tuple[float, float] | Callable = (0.0, 0.0), zoom: float | Callable = 1.0,
            turn: float | Callable = 0.0, channels: int | None = None, mean: float = 0.0, std: float = 1.0,
            prefilter: str = "gaussian") -> PicturePath:
    """A crop that pans, zooms and turns over a photograph.

    If ``pan``, ``zoom`` and ``turn`` are numbers, the crop moves once round a closed loop, t in [0, 2π]: its centre
    moves by (pan₀ sin t, pan₁ sin 2t) pixels, its magnification is zoom^(sin t), it turns by turn · sin t. A function
    of t gives a motion of your own. Outside its edges the picture is continued by its mirror image, which is as smooth.

    Parameters
    ----------
    source
        What `load_picture` takes.
    box
        The crop at rest: [left, top, right, bottom] in pixels; None for the whole picture.
    size
        Pixels of the crop, on a side or (height, width).
    pan
        Pixels of the picture, right and down; or ``t (P,) -> (P, 2)``.
    zoom
        Magnification, positive; or ``t (P,) -> (P,)``.
    turn
        Radians, clockwise as seen; or ``t (P,) -> (P,)``.
    channels
        As for `load_picture`.
    mean, std
        The crops are (pixel − mean)/std.
    prefilter
        What is done before the crop where its pixels are larger than the picture's: ``"gaussian"`` (standard
        deviation half a pixel of the crop), ``"area"`` (the mean over one pixel of the crop) or ``"none"``.

    Returns
    -------
    PicturePath
        ``path(t: (P,)) -> (P, C, height, width)``.

    Raises
    ------
    ValueError
        For a picture that cannot be read, a box that is not four numbers or not inside the picture, and sizes,
        motions or filters that are not allowed; each message begins with the parameter's name.
    """
    pixels = load_picture(source, channels)
    box = _checked_box(box, pixels.shape[-1], pixels.shape[-2])
    size = image_size(size)
    if not is_number(std, above=0) or not is_number(mean):
        raise ValueError(f"mean = {mean!r}, std = {std!r}: they must be finite, std positive")
    still = is_number(turn) and turn == 0
    motion = _motion("pan", pan), _motion("zoom", zoom), None if still else _motion("turn", turn)
    scale = ((box[3] - box[1]) / size[0], (box[2] - box[0]) / size[1])
    reduced = int(min(scale) / _REDUCE_TO) if min(scale) >= _REDUCE_FROM else 1
    smooth = (pixels - mean) / std
    if reduced > 1:
        smooth = torch.nn.functional.avg_pool2d(smooth[None], reduced)[0]
    smooth = _prefiltered(smooth.numpy(), [one / reduced for one in scale], prefilter)
    spline = np.stack([ndimage.spline_filter(channel, order=3, mode="mirror") for channel in smooth])
    return PicturePath(pixels, box, size, *motion, torch.from_numpy(spline), reduced)


def _checked_box(box: Sequence[float] | None, width: int, height: int) -> tuple[float, float, float, float]:
    if box is None:
        return 0.0, 0.0, float(width), float(height)
    if not are_numbers(box, 4):
        raise ValueError(f"box = {box!r}: it must be four numbers [left, top, right, bottom], in pixels")
    left, top, right, bottom = (float(edge) for edge in box)
    if left >= right or top >= bottom:
        raise ValueError(f"box = {box!r}: [left, top, right, bottom] needs left < right and top < bottom")
    if left < 0 or top < 0 or right > width or bottom > height:
        raise ValueError(f"box = {box!r}: it leaves the picture, {width} pixels wide and {height} high")
    return left, top, right, bottom


def _prefiltered(pixels: np.ndarray, scale: Sequence[float], kind: str) -> np.ndarray:
    """Smoothed along each axis where one pixel of the crop spans ``scale`` > 1 pixels of the picture."""
    if not isinstance(kind, str) or kind not in ("gaussian", "area", "none"):
        raise ValueError(f"prefilter = {kind!r}: it must be 'gaussian', 'area' or 'none'")
    for axis, width in enumerate(scale, start=1):
        if kind == "gaussian" and width > 1:
            pixels = ndimage.gaussian_filter1d(pixels, width / 2, axis=axis, mode="mirror")
        elif kind == "area" and width > 1:
            reach = math.ceil((width - 1) / 2)
            offsets = np.abs(np.arange(-reach, reach + 1))
            share = np.clip(width / 2 + 0.5 - offsets, 0, 1) / width
            pixels = ndimage.convolve1d(pixels, share, axis=axis, mode="mirror")
    return pixels


# The motions are partial functions, not closures, so that a path can be sent to another process.
def _loop(reach, t):
    right, down = (float(part) for part in reach)
    return torch.stack([right * torch.sin(t), down * torch.sin(2 * t)], dim=1)


def _power(base, t):
    return torch.exp(math.log(base) * torch.sin(t))


def _swing(reach, t):
    return float(reach) * torch.sin(t)


#: By name of the argument: the motion, whether a number is one of its own, and what the number must be.
_MOTIONS = {
    "pan": (_loop, lambda pan: are_numbers(pan, 2), "it must be two finite numbers, in pixels right and down"),
    "zoom": (_power, lambda zoom: is_number(zoom, above=0), "a magnification is positive and finite"),
    "turn": (_swing, is_number, "it must be finite, in radians"),
}


def _motion(name: str, given) -> Callable:
    if callable(given):
        return given
    motion, holds, must = _MOTIONS[name]
    if not holds(given):
        raise ValueError(f"{name} = {given!r}: {must}")
    return functools.partial(motion, given)


def _moved(name: str, motion: Callable, t: torch.Tensor, *width: int) -> torch.Tensor:
    """The values of a motion at the times; refused unless they have the shape (P, *width)."""
    found = motion(t)
    shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    if shape != (len(t), *width):
        raise ValueError(f"{name}(t) gives {shape} for {len(t)} times: it must give a tensor {(len(t), *width)}")
    return found


def _spline(coefficients: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Values (P, C, h, w) of a cubic spline (C, H, W) at x (P, 1, w) and y (P, h, 1), or both (P, h, w)."""
    channels, height, width = coefficients.shape
    flat = coefficients.reshape(channels, height * width)
    (columns, across), (rows, down) = _taps(x, width), _taps(y, height)
    total = 0
    for row, weight in zip(rows, down, strict=True):
        inner = 0
        for column, share in zip(columns, across, strict=True):
            place = row * width + column
            inner = inner + share * flat.index_select(1, place.reshape(-1)).reshape(channels, *place.shape)
        total = total + weight * inner
    return total.transpose(0, 1).contiguous()


def _taps(position: torch.Tensor, count: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The four coefficients that a position reads, mirrored at the ends, and the cubic B-spline's weights."""
    knot = torch.floor(position.detach())
    f = position - knot
    g = 1 - f
    weights = [g**3 / 6, (4 - 6 * f**2 + 3 * f**3) / 6, (4 - 6 * g**2 + 3 * g**3) / 6, f**3 / 6]
    first, period = knot.long() - 1, 2 * (count - 1)
    places = [torch.remainder(first + tap, period) for tap in range(4)]
    return [torch.minimum(place, period - place) for place in places], weights
