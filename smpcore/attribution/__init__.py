"""SMP layer by layer: which units of a model make its output jerk."""

from smpcore.attribution.attribute import Attribution, LayerSmp, attribute

__all__ = ["Attribution", "LayerSmp", "attribute"]
