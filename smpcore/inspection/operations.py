# ruff: noqa: SIM905  (tables of names: one word each reads better than quotes around each)
"""What torch's functions do with their arguments, by name, as far as more than one interpreter of calls must know.

Which of them switch is said in `smpcore.units`; which are straight, in `smpcore.tracing.straight_ops`.
"""

__all__ = ["AFFINE", "CONVOLUTIONS", "FORM_OF", "ON_NO_SIDE", "RANDOM", "TAKES_OUT", "takes_form_alone"]

#: Of two tensors the second gives its form alone.
FORM_OF = frozenset("to type_as expand_as view_as reshape_as".split())
#: Calls that take numbers out of tensors, where nothing can follow them.
TAKES_OUT = frozenset("item tolist numpy __array__ __bool__ __int__ __float__ __index__ __complex__ is_nonzero equal "
                      "allclose __contains__ __format__".split())
#: No floating numbers, yet they say nothing of which side of a threshold a number is on.
ON_NO_SIDE = frozenset("isnan isinf isfinite".split())
#: Calls that draw random numbers where ``p``, their second argument, is not 0 and ``training``, their third, is true.
RANDOM = frozenset("dropout feature_dropout alpha_dropout feature_alpha_dropout".split())

_CONV = ("input", "weight", "bias", "stride", "padding")
CONVOLUTIONS = {f"conv{n}d": (*_CONV, "dilation", "groups") for n in (1, 2, 3)} \
    | {f"conv_transpose{n}d": (*_CONV, "output_padding", "groups", "dilation") for n in (1, 2, 3)}
#: Affine in their input, with their arguments in order.
AFFINE = CONVOLUTIONS | {
    "linear": _CONV[:3],
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")}


def takes_form_alone(name: str) -> bool:
    """Whether a function or kernel reads a tensor's shape and type, and gives new numbers (`new_tensor`: its own)."""
    return name.startswith("new_") or name.endswith("_like")
