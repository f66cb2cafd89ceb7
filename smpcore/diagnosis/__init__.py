"""Why an output jerks: value jumps, kinks, sharp bends, its input, noise or a decoder, told apart; with a report."""

from smpcore.diagnosis.causes import CAUSES, Diagnosis, Part, why
from smpcore.diagnosis.curves import CurveDiagnosis, diagnose_curve, read_curve
from smpcore.diagnosis.report import draw_course, draw_shares, write_page

__all__ = ["CAUSES", "CurveDiagnosis", "Diagnosis", "Part", "diagnose_curve", "draw_course", "draw_shares",
           "read_curve", "why", "write_page"]
