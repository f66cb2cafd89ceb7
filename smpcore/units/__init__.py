"""What switches: every operation that can put a kink or a jump into an output, defined once."""

from smpcore.units.kinds import Hinge, Hinges, Selection, Steps, moves
from smpcore.units.table import TABLE, UNFOLLOWED, canonical, describe

__all__ = ["TABLE", "UNFOLLOWED", "Hinge", "Hinges", "Selection", "Steps", "canonical", "describe", "moves"]
