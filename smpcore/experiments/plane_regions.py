"""Every region of a small fully connected ReLU network in a square of its inputs, by cutting polygons.

For stacks of `nn.Linear` and `nn.ReLU` alone: a method to check the results of traced lines in a plane.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from smpcore.arguments import TENSOR, Kind, checked

__all__ = ["Regions", "plane_regions"]

# The distance from an edge at which gradients are taken for its jump, as a part of the square's side.
_OFF = 1e-9


class Regions(NamedTuple):
    """``polygons``, one ``(V, 2)`` for each region, in parts of the square's sides; and the ``edges`` between two of
    them: both ends ``(E, 2, 2)`` and the jump of the first output's gradient ``(E, 2)``, per part of a side. Each edge
    is there once from either side."""

    polygons: list[np.ndarray]
    edges: Tensor
    jumps: Tensor

    @property
    def total_variation(self) -> float:
        """Σ |jump of the gradient| · length over the edges, in the square's own unit."""
        return float((self.jumps.norm(dim=1) * self.edges.diff(dim=1)[:, 0].norm(dim=1)).sum() / 2)


_STACK = ": it must be an nn.Sequential of nn.Linear and nn.ReLU"


@checked(model=Kind(nn.Sequential, _STACK, lambda model: all(isinstance(layer, nn.Linear | nn.ReLU) for layer in model),
                    _STACK), corner=TENSOR, u=TENSOR, v=TENSOR)
def plane_regions(model: nn.Sequential, corner: Tensor, u: Tensor, v: Tensor) -> Regions:
    """The regions in the square corner + p u + q v, p and q in [0, 1], on which all units keep their side.

    ``corner``, ``u`` and ``v`` ``(features,)``. A TypeError or ValueError for another network.
    """
    whole = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    regions = [(whole, np.stack([part.detach().double().numpy() for part in (u, v, corner)], 1))]
    for layer in model:
        if isinstance(layer, nn.Linear):
            weight, bias = (part.detach().double().numpy() for part in (layer.weight, layer.bias))
            shift = np.pad(bias[:, None], ((0, 0), (2, 0)))
            regions = [(polygon, weight @ plane + shift) for polygon, plane in regions]
            continue
        regions = [(part, plane * (plane @ np.append(part.mean(0), 1) > 0)[:, None]) for polygon, plane in regions
                   for part in _cut(polygon, plane)]
    return _with_edges(regions)


def _cut(polygon: np.ndarray, planes: np.ndarray) -> list[np.ndarray]:
    """A convex polygon cut along the zero lines of ``planes (N, 3)``."""
    parts = [polygon]
    sides = np.c_[polygon, np.ones(len(polygon))] @ planes.T
    for plane in planes[(sides.min(0) < 0) & (sides.max(0) > 0)]:
        found = []
        for part in parts:
            value = part @ plane[:2] + plane[2]
            if value.min() >= 0 or value.max() <= 0:
                found.append(part)
                continue
            after, behind = np.roll(part, -1, 0), np.roll(value, -1)
            crossing = (value > 0) != (behind > 0)
            where = np.where(crossing, value / np.where(crossing, value - behind, 1.0), 0.0)[:, None]
            points = np.stack([part, part + where * (after - part)], 1)
            for sign in (1, -1):
                keep = np.stack([sign * value > 0, crossing], 1)
                found.append(points[keep])
        parts = found
    return parts


def _with_edges(regions) -> Regions:
    polygons, gradients = [each[0] for each in regions], torch.tensor(np.stack([each[1][0, :2] for each in regions]))
    owner = np.repeat(np.arange(len(polygons)), [len(each) for each in polygons])
    ends = np.concatenate([np.stack([each, np.roll(each, -1, 0)], 1) for each in polygons])
    # Neighbours have an edge in common: their middles agree to rounding.
    middle = ends.mean(1)
    inside = ((middle > _OFF) & (middle < 1 - _OFF)).all(1)
    ends, owner, middle = ends[inside], owner[inside], middle[inside]
    pairs = cKDTree(middle).query_pairs(_OFF, output_type="ndarray")
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    jumps = gradients[owner[pairs[:, 1]]] - gradients[owner[pairs[:, 0]]]
    return Regions(polygons, torch.tensor(ends[pairs[:, 0]]), jumps)
