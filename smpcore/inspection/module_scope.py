"""Who names a layer: where in a model a call comes from, and by what name every room lists it.

A layer is one call that can switch, ``module.path:operation``, with ``#2``, ``#3`` for later calls of the same within
one forward pass. `Scope` knows the path, `CallNames` counts and names.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

__all__ = ["CallNames", "Scope", "call_name", "call_site", "eagerly", "in_custom_function"]


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

    def number(self, path: str, operation: str) -> int:
        """1 for the first call of an operation in the module of that path, 2 for the next, and so on."""
        self._met[path, operation] += 1
        return self._met[path, operation]

    def new(self, path: str, operation: str) -> str:
        """The name of the next call of an operation in the module of that path."""
        return call_name(path, operation, self.number(path, operation))


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
