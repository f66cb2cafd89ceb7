"""What `trace_line` is given, checked and made ready: the ends, the model's copy, the outputs chosen."""

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["comes_later", "prepared", "selected", "valid_ends", "valid_length"]

_MOST_OUTPUTS = 64
# What behaves differently in training mode, by the names of torch's own classes and their kin.
_MODES = ("BatchNorm", "Dropout", "InstanceNorm", "RReLU", "StochasticDepth", "DropPath")


def valid_ends(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Two finite floating tensors of one shape, or a sentence."""
    for name, value in (("start", start), ("end", end)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}: give a torch tensor of the model's input shape")
        if not value.is_floating_point():
            raise TypeError(f"{name} is of type {value.dtype}: a line needs floating numbers, so convert it with "
                            ".double()")
    if start.shape != end.shape:
        raise ValueError(f"start has shape {tuple(start.shape)} and end {tuple(end.shape)}: a line joins two "
                         "inputs of one shape")
    if start.device != end.device:
        raise ValueError(f"start is on {start.device} and end on {end.device}: move one to the other's device")
    for name, value in (("start", start), ("end", end)):
        if not bool(torch.isfinite(value).all()):
            index = tuple((~torch.isfinite(value)).nonzero()[0].tolist())
            raise ValueError(f"{name} is NaN or infinite at index {index}: a line needs finite ends")
    return start, end


def valid_length(length: float) -> float:
    """A positive finite number, or a sentence."""
    if isinstance(length, bool) or not isinstance(length, int | float):
        raise TypeError(f"length = {length!r}: it must be a number, the line's length in units of t")
    if not (length > 0 and math.isfinite(length)):
        raise ValueError(f"length = {length!r}: it must be positive and finite, the line's length in units of t")
    return float(length)


def prepared(model: Callable, dtype: torch.dtype, device: torch.device) -> Callable:
    """A copy of the model in ``dtype`` on the line's device, refused where it is in training mode."""
    if not callable(model):
        raise TypeError(f"model is a {type(model).__name__}: give a module or a function of a batch of inputs")
    if not isinstance(model, nn.Module):
        return model
    for name, module in model.named_modules():
        if module.training and any(word in type(module).__name__ for word in _MODES):
            raise ValueError(f"{name or 'the model'} ({type(module).__name__}) is in training mode, where its "
                             "output is not a function of its input alone: call model.eval() first")
    return copy.deepcopy(model).to(device=device, dtype=dtype).requires_grad_(False)


def comes_later(start: Tensor, end: Tensor) -> bool:
    """Whether the line is to be read from its end: where the two first differ, the smaller comes first."""
    differ = (start != end).flatten().nonzero()
    return bool(len(differ) and start.flatten()[differ[0, 0]] > end.flatten()[differ[0, 0]])


def selected(result, outputs: Sequence[int] | Callable | None) -> Tensor:
    """The outputs to measure, of what the model returned."""
    if callable(outputs):
        result = outputs(result)
    if not isinstance(result, Tensor):
        raise TypeError(f"the model returns a {type(result).__name__}: name its tensor with outputs=callable, "
                        "such as outputs=lambda out: out['logits']")
    if not result.is_floating_point():
        raise TypeError(f"the model's output is of type {result.dtype}: only floating outputs have slopes")
    count = result[:1].numel() if result.dim() else 1
    if outputs is None:
        if count > _MOST_OUTPUTS:
            raise ValueError(f"the model has {count} outputs, over {_MOST_OUTPUTS}: choose some, such as "
                             "outputs=[0, 1]")
        return result
    if callable(outputs):
        return result
    chosen = [*outputs]
    for index in chosen:
        if isinstance(index, bool) or not isinstance(index, int):
            raise TypeError(f"outputs holds {index!r}: give whole numbers, indices into the {count} outputs")
        if not -count <= index < count:
            raise ValueError(f"outputs holds {index}, but the model has {count} outputs")
    return result.flatten(1)[:, chosen]
