"""What switches: every operation that can put a kink or a jump into an output, defined once."""

from smpcore.units.kinds import Hinge, Hinges, Selection, Steps, moves
from smpcore.units.selection import adaptive_windows, windows
from smpcore.units.table import TABLE, Unit, arguments, canonical, describe, entry, in_place, switching
from smpcore.units.unfollowed import UNFOLLOWED, unfollowed

__all__ = ["TABLE", "UNFOLLOWED", "Hinge", "Hinges", "Selection", "Steps", "Unit", "adaptive_windows", "arguments",
           "canonical", "describe", "entry", "in_place", "moves", "switching", "unfollowed", "windows"]
