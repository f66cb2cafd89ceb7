"""What a model does, seen from outside: its operations, its modules, and whether it can be measured."""

from smpcore.inspection.calls import Call, Interpreter, Opening, tensors_in, watched
from smpcore.inspection.checks import (
    checked_copy,
    checked_inputs,
    checked_times,
    choose_outputs,
    explained,
    home_of,
    refuse_training,
    runs,
    with_tangent,
)
from smpcore.inspection.module_scope import CallNames, Scope, call_name, call_site, eagerly, in_custom_function
from smpcore.inspection.opaque_ops import Hidden, hidden_switches

__all__ = [
    "Call", "CallNames", "Hidden", "Interpreter", "Opening", "Scope", "call_name", "call_site", "checked_copy",
    "checked_inputs",
    "checked_times", "choose_outputs", "eagerly", "explained", "hidden_switches", "home_of", "in_custom_function",
    "refuse_training", "runs", "tensors_in", "watched", "with_tangent",
]
