"""Photographs as tensors, from a file, a sample's name or an array."""

import os
from pathlib import Path

import numpy as np
import torch

import smpcore
from smpcore.paths.checks import is_whole

__all__ = ["Source", "load_picture"]

Source = str | os.PathLike | np.ndarray | torch.Tensor


def load_picture(source: Source, channels: int | None = None) -> torch.Tensor:
    """A photograph as a tensor.

    Parameters
    ----------
    source
        A file that Pillow reads, the name of one of matplotlib's sample pictures (``"grace_hopper.jpg"``), or
        an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4; the last channel, transparency, is left out).
        Whole numbers are divided by their type's largest, so that uint8 becomes [0, 1]; floats stay.
    channels
        1 makes it grey, 3 gives it three channels, None leaves it as it is.

    Returns
    -------
    Tensor
        (C, H, W), float64.

    Raises
    ------
    ValueError
        For a file that is not there or is no picture, an array of another shape, NaN or infinity, a picture
        under 4 pixels on a side, a number of channels other than 1 and 3. The message begins with the name of the
        notebooks' parameter, ``picture``.
    """
    if channels is not None and not (is_whole(channels) and channels in (1, 3)):
        raise ValueError(f"channels = {channels!r}: it must be 1 (grey) or 3 (colour)")
    if isinstance(source, str | os.PathLike):
        array, name = _read(os.fspath(source)), repr(os.fspath(source))
    else:
        if isinstance(source, torch.Tensor):
            source = (source.double() if source.is_floating_point() else source).detach().cpu()
        array = np.asarray(source)
        name = f"an array of shape {array.shape}"
    array = array[:, :, None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.dtype.kind not in "buif":
        raise ValueError(f"picture = {name} of {array.dtype}: give a file, a sample's name, or an array "
                         "of numbers, (H, W) or (H, W, 3)")
    if min(array.shape[:2]) < 4:
        raise ValueError(f"picture = {name}: it is under 4 pixels on a side")
    largest = np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1
    array = np.ascontiguousarray(array[:, :, :3], dtype=np.float64) / largest
    pixels = torch.from_numpy(array).permute(2, 0, 1)
    if not torch.isfinite(pixels).all():
        raise ValueError(f"picture = {name}: it holds NaN or infinity")
    if channels == 3 and pixels.shape[0] == 1:
        pixels = pixels.expand(3, -1, -1)
    elif channels == 1 and pixels.shape[0] == 3:
        luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)  # ITU-R BT.601
        pixels = (pixels * luma[:, None, None]).sum(0, keepdim=True)
    return pixels.contiguous()


def _read(source: str) -> np.ndarray:
    Image, ImageOps = smpcore.need("PIL.Image"), smpcore.need("PIL.ImageOps")
    path = Path(os.path.expanduser(source))
    path = path if source and os.path.isfile(path) else _sample(source)  # False also where no file has such a name
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)  # phones store how the camera was turned apart from the pixels
            if image.mode == "L" or image.mode.startswith("I;16"):
                return np.asarray(image)
            return np.asarray(image.convert("L" if image.mode in ("1", "LA") else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"picture = {source!r}: it cannot be read as a picture ({error})") from error


def _sample(name: str) -> Path:
    """One of matplotlib's sample pictures, by its bare name."""
    cbook = smpcore.need("matplotlib.cbook")
    if name and Path(name).name == name:
        path = Path(cbook.get_sample_data(name, asfileobj=False))
        if os.path.isfile(path):
            return path
    raise ValueError(f"picture = {name!r}: there is no such file, and matplotlib has no sample picture of "
                     "that name ('grace_hopper.jpg' is one)")
