"""Which kind of network a curve comes from, judged from samples of its outputs without its weights."""

from smpcore.forensics.abstention import verdict
from smpcore.forensics.classifier import CONDITIONS, auc, averaged, cross_validate, degrade, make_bank, table
from smpcore.forensics.features import FEATURES, SAMPLES_NEEDED
from smpcore.forensics.report import Report, bank, features, probability_kinked, report
from smpcore.forensics.training import recipes

__all__ = ["CONDITIONS", "FEATURES", "SAMPLES_NEEDED", "Report", "auc", "averaged", "bank", "cross_validate",
           "degrade", "features", "make_bank", "probability_kinked", "recipes", "report", "table", "verdict"]
