# ruff: noqa: SIM905  (a table of names: one word each reads better than quotes around each)
"""What switches out of sight: one plain pass of a model, in which every operation that reaches torch's kernels is seen.

A `TorchFunctionMode` sees the calls that a model makes in Python. TorchScript, C++ extensions, and torch's own
functions that are written in C++ call further operations that it does not see. Those reach a `TorchDispatchMode`
in a pass without derivatives (whose formulas use masks as well), and whatever of them can switch is named here.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smpcore.inspection.module_scope import Opening, Scope, eagerly, in_custom_function
from smpcore.units import table as switches

__all__ = ["Hidden", "hidden_switches"]

#: Kernels that switch. A selection by a mask (``where``, indexing) is not among them: whatever made the mask is.
_SWITCH = frozenset(
    "relu leaky_relu prelu _prelu_kernel rrelu rrelu_with_noise hardtanh relu6 hardsigmoid hardswish threshold clamp "
    "clamp_min clamp_max abs sgn sign signbit heaviside floor ceil round trunc frac fmod remainder floor_divide gt ge "
    "lt le eq ne max min amax amin aminmax maximum minimum fmax fmin argmax argmin sort argsort topk kthvalue median "
    "nanmedian mode quantile cummax cummin max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d "
    "adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d hardshrink softshrink nonzero bucketize "
    "searchsorted copysign angle special_i0e special_i1e multi_margin_loss multilabel_margin_loss_forward histc "
    "fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask quantize_per_tensor "
    "_cdist_forward _pdist_forward renorm segment_reduce".split())
# Norms switch where their order is 1, 0 or infinite.
_NORMS = {"linalg_vector_norm": 1, "norm": 1, "_cdist_forward": 2, "_pdist_forward": 1, "renorm": 1}
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
        C++.
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
        if self.way == "outside":
            return (f"{self.place} runs {self.op} where it cannot be seen (TorchScript, compiled code, a C++ "
                    "extension, a function under torch.vmap): give the model the Python function that it was made "
                    "from, with a batch dimension, or measure with smp from samples")
        return (f"{self.place} switches inside ({self.op}) and is not followed: write it with abs, relu, clamp, amax "
                "or maximum, which are (a recurrence: step by step), or measure with smp from samples")


def hidden_switches(model, x: Tensor, scope: Scope) -> list[Hidden]:
    """Operations on what depends on x that the measurement cannot see, in one plain pass, in order."""
    kernels = _Kernels(x, scope)
    # Without gradients: a model's numpy calls go through, and nothing is kept for a backward pass.
    with torch.no_grad(), eagerly(), scope(), kernels, _Functions(kernels):
        model(x)
    return list(dict.fromkeys(kernels.found))


class _Functions(Opening):
    """Knows which function of torch is running."""

    def __init__(self, kernels: "_Kernels"):
        super().__init__()
        self.kernels = kernels

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch._C._functorch.peek_interpreter_stack() is not None:
            self.kernels.found.append(Hidden(self.kernels.scope.path, "torch.vmap", "outside", True))
        inside = self.inside(func)
        if inside is not None:
            return inside(*args, **kwargs)
        self.kernels.names.append(switches.canonical(func)[0])
        try:
            return func(*args, **kwargs)
        finally:
            self.kernels.names.pop()


class _Kernels(TorchDispatchMode):
    """Sees every kernel, and knows what depends on the input by the memory that it lies in."""

    def __init__(self, x: Tensor, scope: Scope):
        super().__init__()
        self.scope, self.names, self.found = scope, [], []
        # Kept alive, so that no address is used again.
        self.moving = {x.untyped_storage()._cdata: x}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            depends = [part for part in tree_leaves((args, kwargs))
                       if isinstance(part, Tensor) and _storage(part) in self.moving]
            result = func(*args, **kwargs)
            if depends:
                for part in tree_leaves(result):
                    if isinstance(part, Tensor):
                        self.moving[_storage(part)] = part
                # What made whole numbers of floating ones is the one to name.
                if any(part.is_floating_point() for part in depends):
                    self._look(func._schema.name.split("::")[-1].rstrip("_"), args)
        return result

    def _look(self, op, args):
        name = self.names[-1] if self.names else ""
        if in_custom_function():
            way = "custom"
        elif not name:
            way = "outside"
        elif name in switches.TABLE or name in switches.UNFOLLOWED or name in _SMOOTH:
            return
        else:
            way = "inside"
        can = op in _SWITCH or op in _NORMS
        if op in _NORMS:
            at = _NORMS[op]
            order = args[at] if len(args) > at else 2
            can = isinstance(order, int | float) and not 1 < order < float("inf")
        if can or way != "inside":
            place = f"{self.scope.path}:{name}" if name else self.scope.path
            self.found.append(Hidden(place, op, way, can))


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # sparse and the like have none
        return id(tensor)
