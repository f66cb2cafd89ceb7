"""What a model does, seen from outside: its operations, its modules, and what runs out of sight."""

from smpcore.inspection.calls import Call, Interpreter, Opening, tensors_in, watched
from smpcore.inspection.module_scope import CallNames, Scope, call_name, call_site, eagerly, in_custom_function
from smpcore.inspection.opaque_ops import Hidden, hidden_switches

__all__ = ["Call", "CallNames", "Hidden", "Interpreter", "Opening", "Scope", "call_name", "call_site",
           "eagerly", "hidden_switches", "in_custom_function", "tensors_in", "watched"]
