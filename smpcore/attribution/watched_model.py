"""A model on a path, run under watch: the outputs, their slopes, and every unit that can switch."""

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from smpcore.arguments import checked_inputs, choose_outputs, with_tangent
from smpcore.attribution.interpreter import Watch, mark_of, spikes_as_steps
from smpcore.inspection.module_scope import Scope, eagerly
from smpcore.inspection.refusals import refusal
from smpcore.units import Selection

__all__ = ["WatchedModel", "candidates"]


class WatchedModel:
    """A model, the path that its inputs come from, and the outputs asked for."""

    def __init__(self, model, path, outputs, dtype: torch.dtype):
        if not callable(path):
            raise TypeError(f"the path is a function of times (P,), not {type(path).__name__}")
        self.model, self.path, self.outputs, self.dtype = model, path, outputs, dtype
        self.scope = Scope(model)
        self.tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []

    def inputs(self, t: Tensor) -> Tensor:
        """The path's inputs at times t, where and as the model takes them."""
        return self._placed(checked_inputs(self.path(t), len(t)))

    def _placed(self, x: Tensor) -> Tensor:
        return x.to(self.tensors[0].device if self.tensors else x.device, self.dtype)

    def forward(self, t: Tensor, observe: Callable, *, apart: bool = False, alone: bool = False,
                custom: Callable = str) -> tuple[Tensor, Tensor]:
        """Outputs and slopes ``(samples, m)`` at times t; call within a dual level.

        Parameters
        ----------
        observe, apart
            As `Watch` takes them.
        alone
            Whether no backward pass follows.
        custom
            Called with the name of each custom autograd function that runs on what depends on the path.
        """
        x, slope = forward_ad.unpack_dual(self._placed(with_tangent(self.path, t)))
        watch = Watch(observe, self.scope, apart, alone)
        with torch.set_grad_enabled(not alone):
            # Every operation is in the graph; a copy, for the model may write into its input.
            x = forward_ad.make_dual(x.detach().requires_grad_(not alone).clone(), slope)
            with (eagerly(), self.scope(), sdpa_kernel(SDPBackend.MATH), _explained(watch),
                  spikes_as_steps(watch.spike, custom), watch):
                found = self.model(x)
        z = choose_outputs(found, self.outputs, len(t))
        mark = mark_of(z) or (mark_of(found) if isinstance(found, Tensor) else None)
        if mark:
            raise ValueError(mark)
        value, slope = forward_ad.unpack_dual(z)
        return value, torch.zeros_like(value) if slope is None else slope.detach()


@contextmanager
def _explained(watch):
    """Say where a model that runs by itself fails under watch, and the way round, in place of torch's own words.

    ``watch.place`` is the call, ``module.path:operation``, and ``watch.scope.model`` the model.
    """
    try:
        yield
    except (RuntimeError, TypeError, BufferError) as error:
        text = str(error).split("\n")[0][:200]
        if any(part in str(error) for part in ("forward AD", "forward-mode", "jvp")):
            if "custom autograd.Function" in str(error):
                raise refusal("no jvp", watch.place.split(":")[0], switch=_own_switch(watch.scope.model)) from error
            raise refusal("no derivative", watch.place, text=text) from error
        if isinstance(error, NotImplementedError) or "memory" in text:
            raise
        raise refusal("fails", watch.place, text=text) from error


def _own_switch(model) -> str:
    """How a model's own library replaces its memory-saving Swish by plain operations; empty where it has no switch."""
    for path, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if callable(getattr(module, "set_swish", None)):
            return f"call {'.'.join(filter(None, ('model', path)))}.set_swish(memory_efficient=False), or "
    return ""


def candidates(seen, value: Tensor) -> Tensor:
    """A layer's values with the samples in some dimension but the last."""
    if isinstance(seen, Selection):
        return value.reshape(*seen.source(*seen.inputs).shape[:-1], -1)
    return forward_ad.unpack_dual(seen.input).primal.detach()[..., None]
