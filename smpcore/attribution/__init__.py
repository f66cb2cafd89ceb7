"""SMP layer by layer: which units of a model make its output jerk."""

from smpcore.attribution.attribute import Attribution, LayerSmp, attribute
from smpcore.attribution.suggestion import Suggestion
from smpcore.attribution.unexplained import SamplingWarning

__all__ = ["Attribution", "LayerSmp", "SamplingWarning", "Suggestion", "attribute"]
