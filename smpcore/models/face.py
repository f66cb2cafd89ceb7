"""The three networks of MTCNN with their published weights, and the chain from a box to the landmarks.

K. Zhang, Z. Zhang, Z. Li, Y. Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", IEEE Signal Processing Letters 23(10), 2016. The weights are those of the PyPI package ``mtcnn``
1.0.0 (MIT licence), which is read as a file and never imported.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

import smpcore
from smpcore.arguments import checked
from smpcore.models.weights import FILE, carried_weights
from smpcore.paths.crops import PicturePath, picture
from smpcore.paths.photographs import Source
from smpcore.units import Hinges, entry

__all__ = ["FACE_INPUT", "LANDMARKS", "Candidate", "Face", "FaceNetwork", "FacePipeline", "ProposalNetwork",
           "RefineNetwork", "cubic_b_spline", "face_network", "face_pipeline", "proposal_network", "refine_network"]

#: What `smpcore.paths.picture` needs to make the landmark network's input: RGB, 48×48, (value − 127.5)/128 of 0…255.
#: The two others take 24 and 12 pixels a side.
FACE_INPUT = {"size": 48, "channels": 3, "mean": 127.5 / 255, "std": 128 / 255}

#: The five points, in the network's order; left and right as they appear in the picture.
LANDMARKS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")

_SHA256 = {
    "onet.lz4": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
    "rnet.lz4": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "pnet.lz4": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
}


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

    #: What `smpcore.paths.picture` needs to make its input.
    picture_input = FACE_INPUT

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


class Candidate(NamedTuple):
    """What `RefineNetwork` and `ProposalNetwork` return for P crops.

    Attributes
    ----------
    box
        (P, 4): corrections of the crop's left, top, right and bottom edge, as fractions of its size. Of proposals in a
        larger picture (P, 4, height, width), one for each place of a crop.
    probability
        (P,), or (P, height, width): that there is a face.
    """

    box: torch.Tensor
    probability: torch.Tensor


class RefineNetwork(nn.Module):
    """R-Net: (P, 3, 24, 24) to `Candidate`. Three convolutions, PReLU after each, two max poolings, two heads."""

    #: What `smpcore.paths.picture` needs to make its input.
    picture_input = FACE_INPUT | {"size": 24}

    def __init__(self):
        super().__init__()
        self.conv1, self.prelu1, self.pool1 = nn.Conv2d(3, 28, 3), nn.PReLU(28), _pool(3)
        self.conv2, self.prelu2, self.pool2 = nn.Conv2d(28, 48, 3), nn.PReLU(48), _pool(3)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.box_head, self.class_head = nn.Linear(128, 4), nn.Linear(128, 2)

    def forward(self, x: torch.Tensor) -> Candidate:
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x))
        x = self.prelu4(self.dense(x.permute(0, 3, 2, 1).flatten(1)))
        return Candidate(self.box_head(x), torch.softmax(self.class_head(x), dim=1)[:, 1])


class ProposalNetwork(nn.Module):
    """P-Net: (P, 3, 12, 12) or larger to `Candidate`. Convolutions alone, PReLU after each, one max pooling."""

    #: What `smpcore.paths.picture` needs to make its input.
    picture_input = FACE_INPUT | {"size": 12}

    def __init__(self):
        super().__init__()
        self.conv1, self.prelu1, self.pool1 = nn.Conv2d(3, 10, 3), nn.PReLU(10), _pool(2)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.box_head, self.class_head = nn.Conv2d(32, 4, 1), nn.Conv2d(32, 2, 1)

    def forward(self, x: torch.Tensor) -> Candidate:
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        box, probability = self.box_head(x), torch.softmax(self.class_head(x), dim=1)[:, 1]
        alone = box.shape[2:] == (1, 1)
        return Candidate(box.flatten(1), probability.flatten()) if alone else Candidate(box, probability)


@checked(weights=FILE)
def face_network(weights: str | Path | None = None) -> FaceNetwork:
    """The trained landmark network (O-Net), in evaluation mode, float32.

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
        For weights that are not a path; for a file that is not there, or whose SHA-256 is not the known one, because
        it is a pickle, and reading a pickle runs the code in it.
    """
    return _trained(FaceNetwork(), "onet.lz4", weights)


@checked(weights=FILE)
def refine_network(weights: str | Path | None = None) -> RefineNetwork:
    """The trained network that corrects a box (R-Net); ``weights`` and errors as of `face_network`, of ``rnet.lz4``."""
    return _trained(RefineNetwork(), "rnet.lz4", weights)


@checked(weights=FILE)
def proposal_network(weights: str | Path | None = None) -> ProposalNetwork:
    """The trained network that proposes a box (P-Net); ``weights`` and errors as of `face_network`, of ``pnet.lz4``."""
    return _trained(ProposalNetwork(), "pnet.lz4", weights)


def _trained(model: nn.Module, file: str, weights: str | Path | None):
    content = carried_weights("mtcnn==1.0.0", f"mtcnn/assets/weights/{file}", _SHA256[file], weights)
    joblib = smpcore.need("joblib")
    smpcore.need("lz4")  # the compression of the file, which joblib imports by itself
    # From the bytes that were checked, not from the file again.
    arrays = [torch.from_numpy(np.array(array)) for array in joblib.load(io.BytesIO(content))]
    with torch.no_grad():
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            parameter.copy_(_TO_TORCH[array.ndim](array))
    return model.eval().requires_grad_(False)


#: From the file's layout to torch's, by dimensions: convolutions (kh, kw, in, out), PReLU (1, 1, channels), linear
#: layers (in, out), biases.
_TO_TORCH = {4: lambda weight: weight.permute(3, 2, 0, 1), 3: torch.flatten, 2: torch.t, 1: torch.clone}


def _pool(size: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(size, stride=2, ceil_mode=True)


class FacePipeline(nn.Module):
    """From a box to landmarks, a stage after the other; see `face_pipeline`.

    ``forward(boxes: (P, 4)) -> (P, 10)``: left, top, right and bottom edges in pixels of the photograph, to x of the
    five `LANDMARKS`, then their y, in the same. ``stages`` holds the networks by their names, in order.
    """

    def __init__(self, stages: dict[str, nn.Module], pictures: dict[str, PicturePath]):
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.sizes = {name: one.size[0] for name, one in pictures.items()}
        self.reduced = {name: one.reduced for name, one in pictures.items()}
        for name, one in pictures.items():
            self.register_buffer(f"{name}_coefficients", one.coefficients)

    def forward(self, boxes: torch.Tensor) -> torch.Tensor:
        for name, network in self.stages.items():
            found = network(self._crops(name, boxes))
            size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
            if name == "landmarks":
                corner = boxes[:, :2].repeat_interleave(5, dim=1)
                return corner + found.landmarks * size[:, :2].repeat_interleave(5, dim=1)
            boxes = _square(boxes + found.box * size)
        return boxes

    def _crops(self, name: str, boxes: torch.Tensor) -> torch.Tensor:
        """The picture's cubic spline at the places of a crop's pixels, as `smpcore.paths.picture` has it."""
        coefficients = getattr(self, f"{name}_coefficients").to(boxes.dtype)
        share = (torch.arange(self.sizes[name], dtype=boxes.dtype, device=boxes.device) + 0.5) / self.sizes[name]
        across, down = ((boxes[:, edge, None] + share * (boxes[:, edge + 2] - boxes[:, edge])[:, None])
                        / self.reduced[name] - 0.5 for edge in (0, 1))
        rows, columns = (cubic_b_spline(place[..., None] - torch.arange(count, dtype=boxes.dtype, device=boxes.device))
                         for place, count in zip((down, across), coefficients.shape[1:], strict=True))
        return torch.einsum("phy,cyx,pwx->pchw", rows, coefficients, columns)


def face_pipeline(source: Source = "grace_hopper.jpg", box: Sequence[float] = (165, 125, 375, 335), *,
                  stages: Sequence[str] = ("refine", "landmarks"), **networks: nn.Module) -> FacePipeline:
    """The chain from a face's box over a photograph to its landmarks, as one model: crop, correct the box, crop again.

    Parameters
    ----------
    source
        The photograph, as `smpcore.paths.picture` takes it.
    box
        About where boxes will be, in pixels: the picture is filtered for crops of a box of this size.
    stages
        Some of ``"proposal"``, ``"refine"`` and ``"landmarks"``, in order. If the last is not ``"landmarks"``, the
        output is the corrected box, (P, 4).
    networks
        Networks that replace the trained ones, by the stage's name, for instance one made smooth.

    Returns
    -------
    FacePipeline
        In evaluation mode, float64. Outside the picture the crops are 0, mid-grey.

    Raises
    ------
    ValueError
        As `smpcore.paths.picture`; for unknown stages, and for networks of stages that are not in ``stages``.
    """
    if not stages or any(name not in _STAGES for name in (*stages, *networks)) or not set(networks) <= set(stages):
        raise ValueError(f"stages = {stages!r} with networks for {sorted(networks)}: stages are of {list(_STAGES)}, "
                         "and networks are of those stages")
    pictures = {name: picture(source, box, **FACE_INPUT | {"size": _STAGES[name][1]}) for name in stages}
    chosen = {name: networks.get(name) or _STAGES[name][0]() for name in stages}
    return FacePipeline(chosen, pictures).eval().double().requires_grad_(False)


#: By name: what makes the trained network, and the side of its crop.
_STAGES = {"proposal": (proposal_network, 12), "refine": (refine_network, 24), "landmarks": (face_network, 48)}


def _square(boxes: torch.Tensor) -> torch.Tensor:
    """The square about each box that is as wide as its longer side."""
    size = boxes[:, 2:] - boxes[:, :2]
    half = torch.maximum(size[:, :1], size[:, 1:]) / 2
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return torch.cat([centre - half, centre + half], 1)


def _b_spline(x: torch.Tensor) -> torch.Tensor:
    x = x.abs()
    return ((2 - x).relu() ** 3 - 4 * (1 - x).relu() ** 3) / 6


@entry
def cubic_b_spline(x):
    """The cubic B-spline about 0: twice continuously differentiable, so that it has no threshold."""
    return Hinges("cubic B-spline", x, (), _b_spline, straight=False)
