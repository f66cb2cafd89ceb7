"""Why an output jerks: value jumps, kinks, sharp bends, its input, noise or a decoder, told apart; with a report."""

from smpcore.diagnosis.causes import CAUSES, Diagnosis, Part, why
from smpcore.diagnosis.curves import CurveDiagnosis, diagnose_curve, read_curve

__all__ = ["CAUSES", "CurveDiagnosis", "Diagnosis", "Part", "diagnose_curve", "read_curve", "why"]
