# ruff: noqa: SIM905  (tables of names: one word each reads better than quotes around each)
"""Operations that are straight by nature: what they do to tangents.

A name that is missing here costs time, not truth: the call is then looked at on every piece.
"""

from smpcore._line import Rows

__all__ = ["HOMOGENEOUS", "READERS", "STRAIGHT", "SUMS", "tangents_of"]

#: Calls that read a tensor's form, not its numbers.
READERS = frozenset(
    "size dim ndimension numel nelement stride is_contiguous is_floating_point is_complex element_size "
    "storage_offset data_ptr __len__ get_device type is_inference is_same_size untyped_storage __hash__ "
    "is_nonzero_shape result_type can_cast is_tensor has_names requires_grad_ _is_view is_pinned "
    "is_conj is_neg is_sparse is_set_to broadcast_tensors_shape sym_size".split())

#: f(a x + b y) = a f(x) + b f(y): views, sums, means, pooling by averages.
HOMOGENEOUS = frozenset(
    "view reshape flatten unflatten permute transpose swapaxes swapdims movedim moveaxis squeeze "
    "unsqueeze expand expand_as view_as reshape_as T mT H mH data real __getitem__ select narrow "
    "index_select gather take_along_dim chunk split split_with_sizes tensor_split unbind cat concat "
    "concatenate stack hstack vstack dstack column_stack sum mean cumsum diff flip fliplr flipud roll "
    "rot90 repeat repeat_interleave tile clone contiguous detach alias neg negative to float double "
    "type_as cpu cuda avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d "
    "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d "
    "upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d pixel_shuffle pixel_unshuffle "
    "channel_shuffle unfold im2col col2im fold diagonal diag trace tril triu positive meshgrid "
    "broadcast_to broadcast_tensors atleast_1d atleast_2d as_strided ravel reflection_pad1d "
    "reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "narrow_copy __pos__ _reshape_alias alias_copy".split())
HOMOGENEOUS = frozenset(name.strip("_") for name in HOMOGENEOUS)


#: Straight in each tensor that depends on the line as long as the others do not.
STRAIGHT = HOMOGENEOUS | frozenset(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear bilinear batch_norm "
    "mul multiply div divide true_divide matmul mm bmm mv dot inner outer addmm baddbmm addbmm einsum "
    "tensordot rsub radd rmul __rsub__ __radd__ __rmul__ rmatmul constant_pad_nd pad kron dropout "
    "feature_dropout alpha_dropout scaled_add __matmul__ __rmatmul__ masked_fill where index_add "
    "__setitem__ copy copy_ zero_ add sub subtract addcmul vdot conv_tbc".split())
STRAIGHT = frozenset(name.strip("_") for name in STRAIGHT)

#: Straight in all their tensors together.
SUMS = frozenset(
    "add sub subtract rsub radd cat concat concatenate stack hstack vstack dstack column_stack setitem "
    "copy index_add".split())


_WITH_BIAS = frozenset(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear".split())


def tangents_of(run, inputs: list[Rows]) -> list | None:
    """The tangents behind the commonest calls, taken directly; None for any other call.

    Where the visible batch is one sample, the pieces take its place in the batch, as plain rows of work.
    """
    name = run.name
    args, kwargs = run.arguments()
    tangents = inputs[0].tangents
    if name in _WITH_BIAS and run.places == [0] and not run.in_place:
        if tangents.dim() < 3 or tangents.shape[1] != 1:
            return None
        kwargs = {key: value for key, value in kwargs.items() if key not in ("bias", "input")}
        weight = kwargs.pop("weight", None)
        rest = list(args[1:])
        if rest:
            weight = rest[0]
        rest = rest[2:]
        found = run.func(tangents.flatten(0, 1), weight, None, *rest, **kwargs)
        return [found.unflatten(0, (len(tangents), 1))]
    if name in ("flatten", "view", "reshape") and run.places == [0] and tangents.shape[1:2] == (1,):
        shape = run.result().shape
        return [tangents.reshape(len(tangents), *shape)]
    if name in ("clone", "contiguous", "detach") and run.places == [0]:
        return [tangents]
    if name == "batch_norm" and run.places == [0] and not run.in_place and not args[5]:
        _, weight, _, _, variance, _, _, eps, *_ = args
        scale = (variance + eps).rsqrt()
        if weight is not None:
            scale = scale * weight
        return [tangents * scale.reshape(1, 1, -1, *[1] * (tangents.dim() - 3))]
    if name in ("add", "sub", "radd") and not run.in_place and not kwargs:
        shape = run.result().shape
        sides = [_spread(rows.tangents, shape) for rows in inputs]
        if len(sides) == 2:
            return [sides[0] - sides[1] if name == "sub" else sides[0] + sides[1]]
        sign = -1 if name == "sub" and run.places == [1] else 1
        return [sides[0].expand(-1, *shape) * sign]
    if name in ("dropout", "feature_dropout", "alpha_dropout") and len(args) == 3 and not args[2]:
        return [tangents]
    return None


def _spread(rows, shape):
    return rows.reshape(len(rows), *[1] * (len(shape) - rows.dim() + 1), *rows.shape[1:])

