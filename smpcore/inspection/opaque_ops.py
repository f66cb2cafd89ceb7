# ruff: noqa: SIM905  (a table of names: one word each reads better than quotes around each)
"""What switches out of sight: one plain pass of a model, in which every operation that reaches torch's kernels is seen.

A `TorchFunctionMode` sees the calls that a model makes in Python. TorchScript, C++ extensions, and torch's own
functions that are written in C++ call further operations that it does not see. Those reach a `TorchDispatchMode`
in a pass without derivatives (whose formulas use masks as well), and whatever of them can switch is found here.

What is refused by name, in sight or out of it, stands in `smpcore.units.unfollowed`, and what is said of it in
`smpcore.inspection.refusals`.
"""

import sys
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from smpcore.inspection.calls import Call, Interpreter, tensors_in
from smpcore.inspection.module_scope import Scope, eagerly, in_custom_function
from smpcore.inspection.operations import TAKES_OUT, takes_form_alone
from smpcore.inspection.refusals import sentence
from smpcore.units import TABLE, UNFOLLOWED, switching

__all__ = ["Hidden", "hidden_switches"]

#: Libraries that solve differential equations with steps of their own choice.
_SOLVERS = ("torchdiffeq", "torchode", "torchsde", "torchdyn")

# Smooth all the same: they guard against 0 or infinity, or take the largest out and put it back.
_SMOOTH = frozenset(
    "scaled_dot_product_attention multi_head_attention_forward cosine_similarity softmax log_softmax logsumexp "
    "isnan isinf isfinite isposinf isneginf nan_to_num slogdet logdet det corrcoef linalg_slogdet linalg_det".split())


class Hidden(NamedTuple):
    """One operation that is out of sight.

    Attributes
    ----------
    place
        ``module.path:function``; only the module's path where no function of torch was called.
    op
        The kernel's name.
    way
        ``"outside"``: called by no Python function of torch, or under a transform of functions such as torch.vmap.
        ``"custom"``: within a custom autograd function. ``"inside"``: within a function of torch that is written in
        C++. ``"lost"``: a tensor that depends on the input, but came from no function of torch.
        ``"steps"``: the control of an adaptive solver's steps.
    switches
        Whether it is one that can switch.
    """

    place: str
    op: str
    way: str
    switches: bool

    @property
    def sentence(self) -> str:
        """What cannot be seen, and the way round."""
        return sentence("inside" if self.way == "custom" else self.way, self.place, op=self.op)


def hidden_switches(model, x: Tensor, scope: Scope, other: Tensor | None = None) -> list[Hidden]:
    """Operations on what depends on x that the measurement cannot see, in one plain pass, in order.

    Parameters
    ----------
    other
        Another input of the same shape, for a second pass: a tensor that came from no function of torch, as weights do,
        and that differs between the two depends on the input.
    """
    found, first = _one_pass(model, x, scope)
    if other is not None:
        more, second = _one_pass(model, other, scope)
        found += more
        if second != first:
            # A model that settles at its first call (converts its weights, fills a buffer) is alike in the two others.
            more, first = _one_pass(model, x, scope)
            found += more
        found += [Hidden(place, "", "lost", True)
                  for (place, number), again in zip(first, second, strict=False) if again != (place, number)][:1]
    return list(dict.fromkeys(found))


def _one_pass(model, x: Tensor, scope: Scope) -> tuple[list[Hidden], list[tuple[str, int]]]:
    """What is out of sight, and the tensors of unknown origin by place and content."""
    kernels = _Kernels(x, scope)
    functions = _Functions(kernels)
    # Without gradients: a model's numpy calls go through, and nothing is kept for a backward pass.
    with torch.no_grad(), eagerly(), scope(), kernels, functions:
        model(x)
    return kernels.found, functions.unknown


#: Functions that copy a tensor's numbers and leave its derivative behind.
_NUMBERS_ALONE = frozenset(("tensor", "__deepcopy__", "set"))


class _Functions(Interpreter):
    """Knows which function of torch is running, and which tensors such functions gave.

    Attributes
    ----------
    unknown
        ``(place, sum of its bits)`` of every tensor among the arguments that none gave.
    """

    def __init__(self, kernels: "_Kernels"):
        super().__init__(kernels.scope)
        self.kernels, self.unknown = kernels, []
        # What depends on the input as far as functions show, and all that they gave; kept alive, so that no identity
        # is used again.
        (x,) = kernels.moving.values()
        self.moving, self.given = {id(x): x}, {id(x): x}

    def call(self, call: Call):
        kernels, name, tensors = self.kernels, call.op, call.tensors
        if torch._C._functorch.peek_interpreter_stack() is not None:
            kernels.found.append(Hidden(call.path, "torch.vmap", "outside", True))
            return call.plain()
        moving = any(self._moves(part) for part in tensors)
        inside, known = self.inside(call.func), len(self.unknown)
        if inside is None:
            # Of what is overwritten, or of what new numbers are made after, no number is read.
            first = (call.overwrites and name in ("zero", "fill", "copy")) or takes_form_alone(name)
            self._look(tensors[first:], call.place)
        if name in TAKES_OUT and any(_storage(part) in kernels.moving for part in tensors) and _in_solver():
            kernels.found.append(Hidden(call.path, name, "steps", True))
        kernels.names.append(name)
        try:
            result = (inside or call.func)(*call.args, **call.kwargs)
        finally:
            kernels.names.pop()
        found = tensors_in(result)
        if inside is None and not found and name not in TAKES_OUT and name != "__setitem__":
            del self.unknown[known:]  # its form alone was read
        self.given |= {id(part): part for part in found}
        if moving and name not in _NUMBERS_ALONE and not takes_form_alone(name):
            if call.overwrites or "out" in call.kwargs:
                written = tensors[0], tensors[0]._base, call.kwargs.get("out")
                found = found + [part for part in written if part is not None]
            self.moving |= {id(part): part for part in found if _storage(part) in kernels.moving}
        return result

    def _moves(self, tensor: Tensor) -> bool:
        return id(tensor) in self.moving or (tensor._base is not None and id(tensor._base) in self.moving)

    def _look(self, tensors: list[Tensor], place: str) -> None:
        for part in tensors:
            # A type of tensor of the model's own has its own ways of computing.
            if _storage(part) in self.kernels.moving and (
                    not self._moves(part) or type(part) not in (Tensor, torch.nn.Parameter)):
                self.kernels.found.append(Hidden(place, "", "lost", True))
            if id(part) not in self.given and not in_custom_function():
                with _disable_current_modes():
                    self.unknown.append((place, _bits(part)))


def _in_solver() -> bool:
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] not in _SOLVERS:
        frame = frame.f_back
    return frame is not None


def _bits(tensor: Tensor) -> int:
    """The sum of a tensor's numbers read as integers: exact, and another one where any number is, but for chance."""
    if tensor.layout != torch.strided:
        return 0
    tensor = tensor.detach().resolve_conj().resolve_neg()
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return int(tensor.contiguous().view(kind).sum())


class _Kernels(TorchDispatchMode):
    """Sees every kernel, and knows what depends on the input by the memory that it lies in."""

    def __init__(self, x: Tensor, scope: Scope):
        super().__init__()
        self.scope, self.names, self.found = scope, [], []
        # Kept alive, so that no address is used again.
        self.moving = {_storage(x): x}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            depends = [part for part in tensors_in((args, kwargs)) if _storage(part) in self.moving]
            result = func(*args, **kwargs)
            if depends:
                op = func._schema.name.split("::")[-1].rstrip("_")
                if not takes_form_alone(op):
                    self.moving |= {_storage(part): part for part in tensors_in(result)}
                # Report the operation that turned floats into integers, not its users.
                if any(part.is_floating_point() for part in depends):
                    self._look(op, args)
        return result

    def _look(self, op, args):
        name = self.names[-1] if self.names else ""
        if in_custom_function():
            way = "custom"
        elif not name:
            way = "outside"
        elif name in TABLE or name in UNFOLLOWED or name in _SMOOTH:
            return
        else:
            way = "inside"
        # A selection by a mask (``where``, indexing) is none: whatever made the mask is.
        can = switching(op, args)
        if can or way != "inside":
            place = f"{self.scope.path}:{name}" if name else self.scope.path
            self.found.append(Hidden(place, op, way, can))


def _storage(tensor: Tensor) -> int:
    try:
        # The address, which two storages of one memory (DLPack) share; 0 where there are no numbers.
        storage = tensor.untyped_storage()
        return storage.data_ptr() or storage._cdata
    except (NotImplementedError, RuntimeError):  # sparse and the like have none
        return id(tensor)
