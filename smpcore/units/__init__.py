"""What switches: every operation that can put a kink or a jump into an output, defined once."""

from smpcore.units.kinds import Hinge, Hinges, Selection, Steps, moves
from smpcore.units.selection import windows
from smpcore.units.table import TABLE, UNFOLLOWED, Unit, canonical, describe, entry, in_place, switching, unfollowed

__all__ = ["TABLE", "UNFOLLOWED", "Hinge", "Hinges", "Selection", "Steps", "Unit", "canonical", "describe", "entry",
           "in_place", "moves", "switching", "unfollowed", "windows"]
