"""The landmark network of MTCNN (O-Net), with its published weights.

K. Zhang, Z. Zhang, Z. Li, Y. Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", IEEE Signal Processing Letters 23(10), 2016. The weights are those of the PyPI package ``mtcnn``
1.0.0 (MIT licence), which is read as a file and never imported.
"""

import hashlib
import importlib.metadata
import io
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

import smpcore
from smpcore.arguments import Kind, checked

__all__ = ["FACE_INPUT", "LANDMARKS", "Face", "FaceNetwork", "face_network"]

#: What `smpcore.paths.picture` needs to make this network's input: RGB, 48×48, (value − 127.5)/128 of 0…255.
FACE_INPUT = {"size": 48, "channels": 3, "mean": 127.5 / 255, "std": 128 / 255}

#: The five points, in the network's order; left and right as they appear in the picture.
LANDMARKS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")

_WEIGHTS = "mtcnn/assets/weights/onet.lz4"
_REMEDY = "'pip install mtcnn==1.0.0'"
_SHA256 = "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3"


class Face(NamedTuple):
    """What `FaceNetwork` returns for P crops.

    Attributes
    ----------
    landmarks
        (P, 10): x of the five `LANDMARKS`, then their y, as fractions of the crop from its left and top edge.
    probability
        (P,): that there is a face.
    box
        (P, 4): corrections of the crop's edges, as fractions of its size.
    """

    landmarks: torch.Tensor
    probability: torch.Tensor
    box: torch.Tensor


class FaceNetwork(nn.Module):
    """O-Net: (P, 3, 48, 48) to `Face`. Four convolutions, PReLU after each, three max poolings, three heads.

    The sides go 48, 46, 23, 21, 10, 8, 4, 3: nothing is padded, and the poolings round up.
    """

    def __init__(self):
        super().__init__()
        self.conv1, self.prelu1, self.pool1 = nn.Conv2d(3, 32, 3), nn.PReLU(32), _pool(3)
        self.conv2, self.prelu2, self.pool2 = nn.Conv2d(32, 64, 3), nn.PReLU(64), _pool(3)
        self.conv3, self.prelu3, self.pool3 = nn.Conv2d(64, 64, 3), nn.PReLU(64), _pool(2)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.box_head, self.landmark_head = nn.Linear(256, 4), nn.Linear(256, 10)
        self.class_head = nn.Linear(256, 2)

    def forward(self, x: torch.Tensor) -> Face:
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.conv4(x))
        # The published dense layer reads width before height, channels last.
        x = self.prelu5(self.dense(x.permute(0, 3, 2, 1).flatten(1)))
        probability = torch.softmax(self.class_head(x), dim=1)[:, 1]
        return Face(self.landmark_head(x), probability, self.box_head(x))


@checked(weights=Kind((str, os.PathLike, type(None)), ": it must be the path of the file onet.lz4, or None"))
def face_network(weights: str | Path | None = None) -> FaceNetwork:
    """The trained face network, in evaluation mode, float32.

    >>> path = paths.picture("grace_hopper.jpg", [165, 125, 375, 335], pan=(16, 10), **FACE_INPUT)
    >>> attribute(face_network(), path, times, outputs=lambda face: face.landmarks)

    Parameters
    ----------
    weights
        The file ``onet.lz4``; where None, that of the installed package ``mtcnn``.

    Raises
    ------
    ModuleNotFoundError
        Where the package is not installed.
    TypeError, ValueError
        For weights that are not a path; for a file that is not there, or whose SHA-256 is not the known one: it is a
        pickle, and reading one runs whatever code it holds.
    """
    path = _find() if weights is None else Path(weights)
    if not path.is_file():
        raise ValueError(f"the face network's weights are not at {str(path)!r}: run {_REMEDY}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256:
        raise ValueError(f"the file {str(path)!r} has SHA-256 {found[:12]}…, not {_SHA256[:12]}…: it is not "
                         f"the known set of weights and is not opened; run {_REMEDY}")
    joblib = smpcore.need("joblib")
    smpcore.need("lz4")  # the compression of the file, which joblib imports by itself
    # From the bytes that were checked, not from the file again.
    arrays = [torch.from_numpy(np.array(array)) for array in joblib.load(io.BytesIO(content))]
    model = FaceNetwork()
    with torch.no_grad():
        for parameter, array in zip(model.parameters(), _to_torch(arrays), strict=True):
            parameter.copy_(array)
    return model.eval().requires_grad_(False)


def _find() -> Path:
    try:
        package = importlib.metadata.distribution("mtcnn")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError("the face network's weights come with the package mtcnn, which is not "
                                  f"installed: run {_REMEDY}") from error
    return Path(str(package.locate_file(_WEIGHTS)))


def _to_torch(arrays: list[torch.Tensor]):
    """In torch's layout: (kh, kw, in, out) to (out, in, kh, kw), (in, out) to (out, in), PReLU flat."""
    for array in arrays:
        if array.ndim == 4:
            yield array.permute(3, 2, 0, 1)
        elif array.ndim == 3:
            yield array.flatten()
        else:
            yield array.T if array.ndim == 2 else array


def _pool(size: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(size, stride=2, ceil_mode=True)
