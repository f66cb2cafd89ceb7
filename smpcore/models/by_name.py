"""A model and a path by name, as a command line or a notebook's parameter gives them."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from smpcore.arguments import (
    FUNCTION,
    MODULE,
    TIMES,
    checked,
    checked_copy,
    checked_inputs,
    choose_outputs,
    home_of,
    optional,
    several,
    whole,
)
from smpcore.paths.lines import line

__all__ = ["check_fit", "load_model", "load_path"]


def load_model(name: str) -> torch.nn.Module:
    """The model that ``"package.module:function"`` names: a function without arguments, or the model itself.

    Parameters
    ----------
    name
        Modules are looked for where Python looks, and in the working folder.

    Returns
    -------
    torch.nn.Module
        In evaluation mode if a function returned it; unchanged if the name is that of a model.

    Raises
    ------
    ValueError
        For a name that cannot be imported, or that is not, and does not return, a `torch.nn.Module`. Its
        sentence begins with the parameter's name, ``model``.
    """
    found = _imported("model", name)
    if isinstance(found, torch.nn.Module):
        return found
    made = _called("model", name, found)
    _refuse_class("model", name, made)
    if not isinstance(made, torch.nn.Module):
        raise ValueError(f"model = {name!r}: it gives a {type(made).__name__}, not a torch.nn.Module")
    return made.eval()


def load_path(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The path that a name stands for.

    Parameters
    ----------
    name
        ``"package.module:function"``, where the function is a path itself (takes the times), or takes no
        argument and returns a path or the two ends of a line; or a file (.pt) that holds the two ends, as
        ``torch.save((start, end), file)`` writes it.

    Raises
    ------
    ValueError
        For a name that cannot be imported, a file that does not hold two tensors of one shape. Its sentence
        begins with the parameter's name, ``path``.
    """
    if isinstance(name, str) and ":" not in name and Path(name).suffix in (".pt", ".pth"):
        return _line_from(name)
    found = _imported("path", name)
    if not callable(found):
        raise ValueError(f"path = {name!r}: it is a {type(found).__name__}, not a function of time")
    if isinstance(found, type) or not _takes_times(found):
        found = _called("path", name, found)
    _refuse_class("path", name, found)
    if _are_ends(found):
        return line(*found)
    if not callable(found):
        raise ValueError(f"path = {name!r}: it gives a {type(found).__name__}, not a function of time")
    return found


@checked(model=MODULE, path=FUNCTION, times=TIMES, outputs=optional(several(
    whole(0), ": it must be a list of whole numbers, the outputs from 0, [] for all", least=0)))
def check_fit(model: torch.nn.Module, path: Callable, times: torch.Tensor, outputs: list[int] | None = None) -> None:
    """Try a model on the two ends of a path, and the outputs that are to be measured.

    Parameters
    ----------
    model, path
        As `load_model` and `load_path` give them.
    times
        ``(P,)``; the first and the last are tried.
    outputs
        Indices of the outputs, an empty list for all; None where they are not to be checked.

    Raises
    ------
    TypeError, ValueError
        For arguments of other types.
        Where the path fails or gives NaN; where the model is in training mode, does not take what the path gives
        (the shape and the error are named) or does not return a tensor; for outputs that it does not have, that are
        named twice, or that are too many.
    """
    ends = times[[0, -1]]
    try:
        with torch.no_grad():
            x = path(ends)
    except Exception as error:
        raise ValueError(f"path: it fails at t = {ends[0].item():g}: {type(error).__name__}: {error}") from error
    for t, one in zip(ends.tolist(), checked_inputs(x, 2), strict=True):
        if not one.isfinite().all():
            raise ValueError(f"path: its input at t = {t:g} holds NaN or infinity")
    try:
        measured = checked_copy(model, torch.float64)
    except ValueError as error:
        raise ValueError(f"model: {error}") from error
    try:
        with torch.no_grad():
            found = measured(x.to(home_of(measured, times), torch.float64))
    except Exception as error:
        raise ValueError(f"model: it does not take the path's inputs of shape {tuple(x.shape)}: "
                         f"{type(error).__name__}: {error}") from error
    if not isinstance(found, torch.Tensor):
        raise ValueError(f"model: it returns a {type(found).__name__}, not a tensor: name a function that wraps it in "
                         "a module which returns the tensor to be measured")
    if outputs is not None:
        if len(set(outputs)) < len(outputs):
            raise ValueError(f"outputs = {outputs}: name each output once")
        choose_outputs(found, outputs or None, 2)


def _imported(parameter: str, name: str):
    module, colon, attribute = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not (module and colon and attribute):
        hint = " or a file of two tensors (.pt)" if parameter == "path" else ""
        raise ValueError(f"{parameter} = {name!r}: write 'package.module:function'{hint}")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{parameter} = {name!r}: the module {module!r} cannot be imported "
                         f"({type(error).__name__}: {error})") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{parameter} = {name!r}: the module {module!r} has no {attribute!r}")
        found = getattr(found, part)
    return found


def _called(parameter: str, name: str, function):
    if not callable(function):
        raise ValueError(f"{parameter} = {name!r}: it is a {type(function).__name__}, not a function")
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{parameter} = {name!r}: calling it without arguments fails "
                         f"({type(error).__name__}: {error})") from error


def _refuse_class(parameter: str, name: str, made) -> None:
    if isinstance(made, type):
        raise ValueError(f"{parameter} = {name!r}: it gives the class {made.__name__}, not a {parameter}: let it "
                         f"return {made.__name__}(…), called")


def _takes_times(function: Callable) -> bool:
    """Whether a call needs exactly one argument, the times."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [one for one in parameters
              if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return len(needed) == 1


def _line_from(name: str):
    try:
        ends = torch.load(Path(name).expanduser(), weights_only=True)
    except Exception as error:
        raise ValueError(f"path = {name!r}: it cannot be read as a file of tensors ({type(error).__name__}: {error})"
                         ) from error
    if not _are_ends(ends):
        raise ValueError(f"path = {name!r}: it must hold two tensors, as torch.save((start, end), file) writes them")
    try:
        return line(*ends)
    except ValueError as error:
        raise ValueError(f"path = {name!r}: {error}") from error


def _are_ends(value) -> bool:
    return (isinstance(value, list | tuple) and len(value) == 2
            and all(isinstance(end, torch.Tensor) for end in value))
