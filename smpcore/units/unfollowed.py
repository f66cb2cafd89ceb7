# ruff: noqa: SIM905  (tables of names: one word each reads better than quotes around each)
"""What is refused by name: operations that switch and are not followed, each with what would do instead.

An attribution refuses an output that depends on one, a trace has a gap there; the sentences around the advice stand in
`smpcore.inspection.refusals`.
"""

from numbers import Real

__all__ = ["KERNELS", "UNFOLLOWED", "is_smooth_norm", "unfollowed"]

#: By the name by which torch calls it, what would do instead.
UNFOLLOWED = dict.fromkeys(
    "sort argsort msort topk median nanmedian kthvalue mode quantile nanquantile".split(),
    "its order switches: use amax, amin or maximum, which are followed, or measure with smp from samples")
UNFOLLOWED |= dict.fromkeys(
    "cummax cummin argmax argmin aminmax fractional_max_pool2d fractional_max_pool3d segment_reduce scatter_reduce "
    "index_reduce norm vector_norm linalg_vector_norm l1_loss cdist pairwise_distance dist renorm".split(),
    "its selection is not followed: write it with abs, amax, amin or maximum, or measure with smp from samples")
UNFOLLOWED |= dict.fromkeys(
    "gt lt ge le eq ne greater less greater_equal less_equal not_equal __gt__ __lt__ __ge__ __le__ __eq__ __ne__ "
    "isclose signbit logical_not nonzero bucketize searchsorted histc long int short bool byte char remainder fmod "
    "__mod__ floor_divide __floordiv__ isposinf isneginf unique".split(),
    "a mask or an index that switches is not followed: write it with relu, clamp, abs or maximum, or measure with smp "
    "from samples")
#: Kernels of torch's that switch, under names that are neither here nor in `smpcore.units.table`.
KERNELS = frozenset(
    "_prelu_kernel rrelu_with_noise copysign angle special_i0e special_i1e multi_margin_loss "
    "multilabel_margin_loss_forward fake_quantize_per_tensor_affine_cachemask "
    "fake_quantize_per_channel_affine_cachemask quantize_per_tensor _cdist_forward _pdist_forward".split())
#: Where the order stands among the arguments of a norm: only those of order 0, 1 and infinity select.
_ORDER_AT = {"norm": 1, "vector_norm": 1, "linalg_vector_norm": 1, "renorm": 1, "cdist": 2, "pairwise_distance": 2,
             "dist": 2, "_cdist_forward": 2, "_pdist_forward": 1}


def unfollowed(name: str, args: tuple, kwargs: dict) -> str | None:
    """What would do instead of a call that switches and is not followed; None for any other call."""
    return None if is_smooth_norm(name, args, kwargs) else UNFOLLOWED.get(name)


def is_smooth_norm(name: str, args: tuple, kwargs: dict) -> bool:
    """Whether a call is a norm of an order that selects nothing."""
    if name not in _ORDER_AT:
        return False
    order = kwargs.get("p", kwargs.get("ord", args[_ORDER_AT[name]] if len(args) > _ORDER_AT[name] else 2))
    return not isinstance(order, Real) or 1 < order < float("inf")
