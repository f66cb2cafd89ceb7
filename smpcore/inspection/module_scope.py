"""Where in a model a call comes from, and how to look inside it."""

import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from smpcore.inspection.recurrences import UNROLLED

__all__ = ["CallNames", "Opening", "Scope", "call_name", "call_site", "eagerly", "in_custom_function"]

_HAS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_OPENED: dict = {}


class Scope:
    """Which module of a model is running, by its path; the root is ``model``."""

    def __init__(self, model):
        self.model, self.stack = model, []

    @contextmanager
    def __call__(self) -> Iterator["Scope"]:
        handles = []
        self.stack = []
        if isinstance(self.model, nn.Module):
            for path, module in self.model.named_modules():
                handles.append(module.register_forward_pre_hook(self._enter(path), prepend=True))
                handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, path):
        return lambda *_: self.stack.append(path)

    def _leave(self, *_):
        if self.stack:
            self.stack.pop()

    @property
    def path(self) -> str:
        return (self.stack[-1] if self.stack else "") or "model"


def call_name(path: str, operation: str, number: int) -> str:
    """``module.path:operation`` of the first call of an operation in a module, with ``#2``, ``#3`` for later ones."""
    return f"{path}:{operation}" + (f"#{number}" if number > 1 else "")


def call_site(name: str) -> str:
    """The name of the first call of the same operation in the same module: ``relu`` of ``relu#3``."""
    return name.partition("#")[0]


class CallNames:
    """The names of one forward pass's calls, as they are made."""

    def __init__(self):
        self._met: Counter = Counter()

    def new(self, path: str, operation: str) -> str:
        """The name of the next call of an operation in the module of that path."""
        self._met[path, operation] += 1
        return call_name(path, operation, self._met[path, operation])


class Opening(TorchFunctionMode):
    """A mode that sees the calls inside torch's functions that are written in Python, and inside recurrent layers."""

    def __init__(self):
        super().__init__()
        self._running: list[Callable] = []

    def inside(self, func: Callable) -> Callable | None:
        """What to call instead of a function, so that the calls inside it are seen; None where it is one call."""
        found = _opened(func)
        # A method that calls its parent's under the same name meets itself here: then it is one call.
        if found is None or func in self._running:
            return None

        def call(*args, **kwargs):
            self._running.append(func)
            try:
                with self:
                    return found(*args, **kwargs)
            finally:
                self._running.pop()

        return call


def _opened(func: Callable) -> Callable | None:
    """A function whose inner calls are seen, for one of torch that is written in Python or recurrent; else None."""
    if not isinstance(func, types.FunctionType):
        return UNROLLED.get(getattr(func, "__name__", ""))
    if func not in _OPENED:
        found = None
        if any(name in func.__globals__ for name in _HAS):
            inner = {**func.__globals__, **dict.fromkeys(_HAS, _never)}
            found = types.FunctionType(func.__code__, inner, func.__name__, func.__defaults__, func.__closure__)
            found.__kwdefaults__ = func.__kwdefaults__
        _OPENED[func] = found
    return _OPENED[func]


def _never(*_):
    return False


def in_custom_function() -> bool:
    """Whether the forward of a custom autograd function is running, which turns both kinds of derivatives off."""
    return not (torch._C._is_fwd_grad_enabled() or torch.is_inference_mode_enabled())


@contextmanager
def eagerly() -> Iterator[None]:
    """Whatever a model compiles for itself runs as it is written, so that its calls are seen; and float32 has its 24
    bits, of which a GPU's convolutions keep 11 by default (TF32): rounding that coarse looks like kinks."""
    cudnn = torch.backends.cudnn
    with ExitStack() as stack:
        # Nothing can be compiled where the compiler was never imported, which takes seconds.
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(cudnn.flags(enabled=cudnn.enabled, benchmark=cudnn.benchmark,
                                        deterministic=cudnn.deterministic, allow_tf32=False))
        yield
