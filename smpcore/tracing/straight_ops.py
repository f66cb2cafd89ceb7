# ruff: noqa: SIM905  (tables of names: one word each reads better than quotes around each)
"""One call of a torch function repeated on every piece of a line, and the operations that are straight by nature."""

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from smpcore.tracing.piecewise import Rows

__all__ = ["ANEW", "HOMOGENEOUS", "IN_PLACE", "LINEAR", "PROPERTIES", "RANDOM", "READERS", "STRAIGHT",
           "SUMS", "Call", "tangents_of"]

#: Calls that read a tensor's form, not its numbers.
READERS = frozenset(
    "size dim ndimension numel nelement stride is_contiguous is_floating_point is_complex element_size "
    "storage_offset data_ptr __len__ get_device type is_inference is_same_size untyped_storage __hash__ "
    "is_nonzero_shape result_type can_cast is_tensor has_names requires_grad_ _is_view is_pinned "
    "is_conj is_neg is_sparse is_set_to broadcast_tensors_shape sym_size".split())

#: f(a x + b y) = a f(x) + b f(y): views, sums, means, pooling by averages.
HOMOGENEOUS = frozenset(
    "view reshape flatten unflatten permute transpose swapaxes swapdims movedim moveaxis squeeze "
    "unsqueeze expand expand_as view_as reshape_as T mT H mH data real getitem select narrow "
    "index_select gather take_along_dim chunk split split_with_sizes tensor_split unbind cat concat "
    "concatenate stack hstack vstack dstack column_stack sum mean cumsum diff flip fliplr flipud roll "
    "rot90 repeat repeat_interleave tile clone contiguous detach alias neg negative to float double "
    "type_as cpu cuda avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d "
    "upsample_nearest_exact1d upsample_nearest_exact2d upsample_nearest_exact3d upsample_linear1d "
    "upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d pixel_shuffle pixel_unshuffle "
    "channel_shuffle unfold im2col col2im fold diagonal diag trace tril triu positive meshgrid "
    "broadcast_to broadcast_tensors atleast_1d atleast_2d as_strided ravel reflection_pad1d "
    "reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "narrow_copy pos reshape_alias alias_copy".split())

#: f(x, c) is a multiple of x in the one tensor that depends on the line: slopes go through it as values do.
LINEAR = frozenset(
    "mul multiply div divide true_divide truediv matmul mm bmm mv dot inner outer einsum tensordot rmul rmatmul kron "
    "vdot".split())

#: Straight in each tensor that depends on the line as long as the others do not.
STRAIGHT = HOMOGENEOUS | LINEAR | frozenset(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear bilinear batch_norm "
    "addmm baddbmm addbmm rsub radd constant_pad_nd pad dropout feature_dropout alpha_dropout scaled_add masked_fill "
    "where index_add setitem copy zero add sub subtract addcmul conv_tbc".split())

#: Straight in all their tensors together.
SUMS = frozenset(
    "add sub subtract rsub radd cat concat concatenate stack hstack vstack dstack column_stack setitem "
    "copy index_add".split())


_WITH_BIAS = frozenset("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear".split())
_HEAD = "input", "weight", "bias"  # what these calls take first, in this order


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
        given = dict(zip(_HEAD, args, strict=False)) | kwargs
        rest = {key: value for key, value in kwargs.items() if key not in _HEAD}
        found = run.func(tangents.flatten(0, 1), given["weight"], None, *args[3:], **rest)
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


#: Calls that take a tensor's form alone, and give new numbers.
ANEW = frozenset("zeros_like ones_like empty_like full_like new_zeros new_ones new_full new_empty new_tensor "
                  "new_empty_strided".split())
PROPERTIES = frozenset(("T", "mT", "H", "mH", "data", "real"))
#: Calls that draw random numbers where this argument is true.
RANDOM = {"dropout": 2, "feature_dropout": 2, "alpha_dropout": 2, "feature_alpha_dropout": 2, "rrelu": 3}
IN_PLACE = {"add", "sub", "mul", "truediv", "div", "pow", "and", "or", "xor"}


class Call:
    """One call: its function, its arguments as leaves, and which of them depend on the line."""

    def __init__(self, func, name, leaves, spec, places, in_place):
        self.func, self.name, self.leaves, self.spec, self.places = func, name.strip("_"), leaves, spec, places
        self.in_place = in_place

    def result(self):
        """The ordinary result, computed once."""
        if not hasattr(self, "_result"):
            args, kwargs = tree_unflatten(self.leaves, self.spec)
            self._result = self.func(*args, **kwargs)
        return self._result

    def arguments(self):
        return tree_unflatten(self.leaves, self.spec)

    def of(self, *inputs):
        """The call on other tensors in the places of those that depend on the line; never in place."""
        leaves = list(self.leaves)
        for place, value in zip(self.places, inputs, strict=True):
            leaves[place] = value
        if self.in_place:
            # A constant that is written into becomes one tensor for each piece: vmap needs it to depend on one.
            target = leaves[0] = leaves[0].clone() if 0 in self.places else \
                leaves[0] + torch.zeros_like(inputs[0]).sum().to(leaves[0].dtype)
        args, kwargs = tree_unflatten(leaves, self.spec)
        found = self.func(*args, **kwargs)
        return target if self.in_place else found

    def over(self, inputs):
        """The call on each of the pieces: inputs ``(n, *shape)``."""
        return torch.func.vmap(self.of)(*[part.contiguous() if self.name == "view" else part for part in inputs])

    def replay(self, place, number):
        """A function that repeats this view on rows ``(n, *shape)``, and gives its output of that number."""
        index = self.places.index(place)
        leaves, places = list(self.leaves), self.places

        def view(rows):
            def one(value):
                mine = list(leaves)
                mine[places[index]] = value
                args, kwargs = tree_unflatten(mine, self.spec)
                found = self.func(*args, **kwargs)
                return found if isinstance(found, Tensor) else found[number]
            return torch.func.vmap(one)(rows)
        return view

    def homogeneous(self) -> bool:
        """Whether all tensors among the arguments that are numbers depend on the line."""
        return all(not isinstance(leaf, Tensor) or i in self.places or not leaf.is_floating_point()
                   for i, leaf in enumerate(self.leaves))

    def linear(self) -> bool:
        """Whether a call that is straight in each tensor is straight in those that depend on the line."""
        if self.name in ("div", "divide", "true_divide", "truediv"):
            return self.places == [0] and self.arguments()[1].get("rounding_mode") is None
        if self.name == "batch_norm":
            return self.places == [0] and not self.leaves[5]
        return len(self.places) == 1 or self.name in SUMS

    def floating(self) -> bool:
        """Whether everything it returns has slopes (a cast to integers has none)."""
        flat, _ = tree_flatten(self.leaves[0] if self.in_place else self.result())
        return all(part.is_floating_point() or part.is_complex() for part in flat if isinstance(part, Tensor))

    def slopes(self, inputs, tangents, scope: str):
        """Values and slopes of every output on each piece: ``[(values, slopes or None)]``."""
        moving = [i for i, part in enumerate(tangents) if part is not None]
        flat, _ = tree_flatten(self.leaves[0] if self.in_place else self.result())
        count = max(len(part) for part in [*inputs, *[tangents[i] for i in moving]])
        # In one layout: torch copies a tangent into its value's, which an expanded value's does not allow.
        inputs = [part.contiguous().expand(count, *part.shape[1:]) for part in inputs]
        tangents = [None if part is None else part.contiguous() for part in tangents]
        nothing_floats = not any(part.is_floating_point() for part in flat if isinstance(part, Tensor))

        def one(values, slopes):
            def only(*parts):
                everything = list(values)
                for i, part in zip(moving, parts, strict=True):
                    everything[i] = part
                flat, _ = tree_flatten(self.of(*everything))
                flat = [part for part in flat if isinstance(part, Tensor)]
                return tuple(part for part in flat if part.is_floating_point()), tuple(
                    part for part in flat if not part.is_floating_point())
            if not moving or nothing_floats:
                floats, others = only(*[values[i] for i in moving])
                return floats, tuple(torch.zeros_like(part) for part in floats), others
            floats, rise, others = torch.func.jvp(
                only, tuple(values[i] for i in moving), tuple(slopes), has_aux=True)
            return floats, rise, others

        try:
            floats, rise, others = torch.func.vmap(one)(tuple(inputs), tuple(tangents[i] for i in moving))
        except (NotImplementedError, RuntimeError) as error:
            if "out of memory" in str(error):
                raise
            raise ValueError(
                f"{scope}:{self.name} cannot be followed along a line ({str(error).splitlines()[0]}): "
                "use an operation with forward-mode AD, or measure with smp from samples") from error
        floats, rise, others = iter(floats), iter(rise), iter(others)
        return [(next(floats), next(rise)) if part.is_floating_point() else (next(others), None)
                for part in flat if isinstance(part, Tensor)]

