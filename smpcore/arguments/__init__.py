"""Checks of what public functions are given: kinds of arguments, devices by name, models, paths and times."""

from smpcore.arguments.kinds import (
    DTYPE,
    FUNCTION,
    MODULE,
    POSITIVE,
    TENSOR,
    TIMES,
    Kind,
    check,
    checked,
    one_of,
    optional,
    several,
    whole,
)
from smpcore.arguments.model_and_path import (
    checked_copy,
    checked_inputs,
    checked_times,
    choose_outputs,
    home_of,
    refuse_training,
    runs,
    with_gradients,
    with_tangent,
)

__all__ = [
    "DTYPE", "FUNCTION", "MODULE", "POSITIVE", "TENSOR", "TIMES", "Kind", "check", "checked",
    "checked_copy", "checked_inputs", "checked_times", "choose_outputs", "home_of", "one_of", "optional",
    "refuse_training", "runs", "several", "whole", "with_gradients", "with_tangent",
]
