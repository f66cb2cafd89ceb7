"""Checks of a model, a path and times before anything is measured; each error says what is wrong."""

import copy
import inspect
import traceback
from collections.abc import Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

__all__ = ["checked_copy", "checked_inputs", "checked_times", "choose_outputs", "home_of",
           "refuse_training", "runs", "with_gradients", "with_tangent"]

#: The most outputs that are measured; with more, some have to be chosen.
_MOST_OUTPUTS = 64
#: Modules whose output in training mode is not a function of their input.
_TRAINED = nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd | nn.RReLU


def refuse_training(model: nn.Module) -> None:
    """Refuse a model of which a part draws random numbers, or normalises by the batch, in training mode."""
    for path, module in model.named_modules():
        if module.training and isinstance(module, _TRAINED):
            raise ValueError(f"module {path or 'model'} ({type(module).__name__}) is in training mode, so the output "
                             "is not a function of t: call model.eval() first")


def checked_inputs(found, samples: int, what: str = "path") -> Tensor:
    """The inputs that a path gave for ``samples`` times, if they are a tensor ``(P, *input_shape)``.

    Raises
    ------
    TypeError, ValueError
        Where it is not. ``what`` names the path.
    """
    if not isinstance(found, Tensor):
        raise TypeError(f"the {what} returns a {type(found).__name__}: it must return a torch tensor (P, *input_shape)")
    if found.ndim < 2 or found.shape[0] != samples:
        raise ValueError(f"for {samples} times the {what} returns shape {tuple(found.shape)}: it must return one "
                         "input for each time, (P, *input_shape); where an input is one number, (P, 1)")
    return found


def with_gradients(function):
    """A function that takes gradients, whether or not its caller has switched them off."""
    return torch.inference_mode(False)(torch.enable_grad()(function))


def with_tangent(path, times: Tensor, what: str = "path") -> Tensor:
    """The inputs that a path gives at ``times (P,)``, with their slopes as tangents; call within a dual level.

    Raises
    ------
    TypeError, ValueError
        Where it gives no tensor ``(P, *input_shape)``, or one that carries no tangent. ``what`` names the path.
    """
    found = checked_inputs(path(forward_ad.make_dual(times, torch.ones_like(times))), len(times), what)
    if forward_ad.unpack_dual(found).tangent is None:
        raise ValueError(f"the {what} carries no tangent: compute its inputs from t by differentiable torch "
                         "operations, without numpy, float(t), .item() or .detach()")
    return found


def checked_copy(model, dtype: torch.dtype):
    """A copy of the model in ``dtype``, in which nothing needs a gradient; the caller's is not touched."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype is a floating torch type such as torch.float64, not {dtype!r}")
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype = {dtype!r} has too few digits for slopes: use torch.float64 or torch.float32")
    if not callable(model):
        raise TypeError(f"the model is a torch.nn.Module or a function of a tensor, not {type(model).__name__}")
    if not isinstance(model, nn.Module):
        return model
    model = getattr(model, "_orig_mod", model)
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(f"module {path or 'model'} is TorchScript, inside which units cannot be seen: give the "
                             "model it was made from")
    refuse_training(model)
    _refuse_by_tensors(model)
    try:
        with _NumbersAlone():
            model = copy.deepcopy(model)
    except Exception as error:
        raise ValueError(f"the model cannot be copied ({error}); the measurement runs on a copy, so that yours is "
                         "never touched: make copy.deepcopy(model) work, by removing parametrisations for one"
                         ) from error
    # Not model.to(dtype), which would drop the imaginary part of complex numbers.
    wider = torch.complex128 if dtype == torch.float64 else torch.complex64
    model._apply(lambda part: part.to(wider if part.is_complex() else dtype)
                 if part.is_complex() or part.is_floating_point() else part)
    return model.requires_grad_(False)


class _NumbersAlone(TorchFunctionMode):
    """Within it `copy.deepcopy` copies the numbers of a tensor that was computed from others; otherwise it refuses.

    Weight norm and pruning keep such tensors as attributes, spiking networks as buffers after training.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


def _refuse_by_tensors(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.nn.quantized")):
            raise ValueError(f"module {path or 'model'} is quantised: give the floating model that it was made from")
    for name, part in [*model.named_parameters(), *model.named_buffers()]:
        if part.is_meta:
            raise ValueError(f"{name} is on the meta device and holds no numbers: load the model's weights first")


def home_of(model, times: Tensor) -> torch.device:
    """Where a model computes: with its parameters, or, where it has none, with the times."""
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    return tensors[0].device if tensors else times.device


def checked_times(times) -> Tensor:
    """Times as float64, at least two, finite and increasing."""
    if not isinstance(times, Tensor):
        raise TypeError(f"times is a torch tensor (P,), not {type(times).__name__}")
    if times.layout != torch.strided or times.device.type == "meta":
        raise TypeError("times is sparse, or without numbers on device 'meta': give a dense tensor (P,)")
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"times has shape {tuple(times.shape)}: it must be (P,) with at least two times")
    times = times.detach().to(torch.float64 if times.device.type != "mps" else torch.float32)
    if not bool(times.isfinite().all()):
        raise ValueError(f"times[{int((~times.isfinite()).nonzero()[0])}] is not a finite number")
    falls = (times.diff() <= 0).nonzero()
    if len(falls):
        n = int(falls[0]) + 1
        raise ValueError(f"times must increase, and times[{n}] = {float(times[n]):g} does not exceed "
                         f"times[{n - 1}] = {float(times[n - 1]):g}")
    return times


def choose_outputs(found, outputs, samples: int) -> Tensor:
    """The outputs asked for, ``(samples, m)``, out of what the model returned."""
    if callable(outputs):
        found = outputs(found)
    if not isinstance(found, Tensor):
        what = "outputs(…) returned" if callable(outputs) else "the model returns"
        raise TypeError(f"{what} a {type(found).__name__}, not a tensor: choose with outputs=lambda result: …, which "
                        "takes what the model returns and gives a tensor (P, m)")
    if found.ndim == 0 or found.shape[0] != samples:
        raise ValueError(f"for {samples} inputs the output has shape {tuple(found.shape)}: its first dimension must "
                         "be the inputs, one row for each")
    if not found.is_floating_point():
        raise TypeError(f"the output is of {found.dtype}: slopes need a floating tensor, such as the logits")
    if found.numel() == 0:
        raise ValueError(f"the output has shape {tuple(found.shape)}, which holds no numbers")
    found = found.reshape(samples, -1)
    if outputs is None or callable(outputs):
        if found.shape[1] > _MOST_OUTPUTS:
            raise ValueError(f"the model has {found.shape[1]} outputs, and each takes a backward pass: choose at most "
                             f"{_MOST_OUTPUTS} with outputs=[0, 1, …] or outputs=lambda result: …")
        return found
    if not isinstance(outputs, int | Iterable) or (isinstance(outputs, Tensor) and outputs.ndim != 1):
        raise TypeError(f"outputs = {outputs!r}: give whole numbers into the output flattened to (P, m), a function of "
                        "what the model returns, or None for all")
    chosen = [outputs] if isinstance(outputs, int) else list(outputs)
    for index in chosen:
        if isinstance(index, bool) or not isinstance(index, int) or not -found.shape[1] <= index < found.shape[1]:
            raise ValueError(f"outputs has {index!r}: indices go from 0 to {found.shape[1] - 1}, into the output "
                             "flattened to (P, m)")
    if not chosen or len(chosen) > _MOST_OUTPUTS:
        raise ValueError(f"outputs names {len(chosen)} outputs: name 1 to {_MOST_OUTPUTS}")
    return found[:, chosen]


@contextmanager
def runs(dtype: torch.dtype, x: Tensor, model=None):
    """Say in a sentence why a model does not run on inputs x, for reasons that do not lie in the measurement."""
    try:
        yield
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = str(error).splitlines()[0][:200] if str(error) else \
            f"{type(error).__name__} at {where.filename}:{where.lineno}, {where.line}"
        if "dtype" in text or ("Float" in text and "Double" in text):
            other = torch.float32 if dtype != torch.float32 else torch.float64
            raise ValueError(f"the model does not run in {dtype} ({text}): it makes tensors of a type of its own, or "
                             "keeps them as plain attributes: make them with x.new_zeros(…) or .to(x), keep them with "
                             f"register_buffer, or measure with dtype={other}") from error
        names = _wanted(model)
        if isinstance(error, TypeError) and len(names) > 1:
            raise ValueError(f"the model takes {len(names)} inputs ({', '.join(names)}): a wrapper with one tensor is "
                             f"wanted, such as lambda x: model(x, {names[1]}) or, for a path through both, "
                             "lambda x: model(*x.split(sizes, 1))") from error
        raise ValueError(f"the model does not run on inputs of shape {tuple(x.shape)} ({text}): the path gives "
                         "(P, *input_shape), a batch of inputs as the model takes them") from error


def _wanted(model) -> list[str]:
    """Names of the inputs that a model cannot be called without."""
    try:
        parameters = inspect.signature(model.forward if isinstance(model, nn.Module) else model).parameters.values()
    except (TypeError, ValueError):
        return []
    return [each.name for each in parameters if each.default is each.empty
            and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
