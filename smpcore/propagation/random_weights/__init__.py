"""Whole networks with weights drawn at random: second moments forward, squared gains backward."""

from smpcore.propagation.random_weights.recursion import Run, walk

__all__ = ["Run", "walk"]
