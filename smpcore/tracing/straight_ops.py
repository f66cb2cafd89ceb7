# ruff: noqa: SIM905  (tables of names: one word each reads better than quotes around each)
"""One call of a torch function repeated on every piece of a line, and the operations that are straight by nature."""

from functools import cached_property

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from smpcore.inspection.calls import Call
from smpcore.inspection.operations import AFFINE, RANDOM
from smpcore.inspection.refusals import refusal
from smpcore.tracing.piecewise import Rows

__all__ = ["HOMOGENEOUS", "LINEAR", "PROPERTIES", "STRAIGHT", "SUMS", "LineCall", "tangents_of"]

#: f(a x + b y) = a f(x) + b f(y): views, sums, means, pooling by averages.
HOMOGENEOUS = frozenset(
    "view reshape flatten unflatten permute transpose swapaxes swapdims movedim moveaxis squeeze unsqueeze expand "
    "expand_as view_as reshape_as T mT H mH data real getitem select narrow index_select gather take_along_dim chunk "
    "split split_with_sizes tensor_split unbind cat concat concatenate stack hstack vstack dstack column_stack sum "
    "mean cumsum diff flip fliplr flipud roll rot90 repeat repeat_interleave tile clone contiguous detach alias neg "
    "negative to float double type_as cpu cuda avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d "
    "upsample_nearest_exact1d upsample_nearest_exact2d upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d "
    "upsample_trilinear3d upsample_bicubic2d pixel_shuffle pixel_unshuffle channel_shuffle unfold im2col col2im fold "
    "diagonal diag trace tril triu positive meshgrid broadcast_to broadcast_tensors atleast_1d atleast_2d as_strided "
    "ravel reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "narrow_copy pos reshape_alias alias_copy type".split())

#: f(x, c) is a multiple of x in the one tensor that depends on the line: slopes go through it as values do.
LINEAR = frozenset(
    "mul multiply div divide true_divide truediv matmul mm bmm mv dot inner outer einsum tensordot rmul rmatmul kron "
    "vdot".split())

#: Straight in each tensor that depends on the line as long as the others do not.
STRAIGHT = HOMOGENEOUS | LINEAR | AFFINE.keys() | RANDOM | frozenset(
    "bilinear addmm baddbmm addbmm rsub radd constant_pad_nd pad masked_fill where index_add setitem copy zero add sub "
    "subtract addcmul conv_tbc".split())

#: Straight in all their tensors together.
SUMS = frozenset(
    "add sub subtract rsub radd cat concat concatenate stack hstack vstack dstack column_stack setitem copy "
    "index_add".split())


def tangents_of(run: "LineCall", inputs: list[Rows]) -> list | None:
    """The tangents behind the commonest calls, taken directly; None for any other call.

    Where the visible batch is one sample, the pieces take its place in the batch, as plain rows of work.
    """
    name, tangents = run.word, inputs[0].tangents
    if run.is_affine and run.places == [0]:
        given, linear = run.affine_parts()
        if tangents.dim() < 3 or tangents.shape[1] != 1 or given.get("training"):
            return None
        return [run.func(**(linear | {"input": tangents.flatten(0, 1)})).unflatten(0, (len(tangents), 1))]
    if name in ("flatten", "view", "reshape") and run.places == [0] and tangents.shape[1:2] == (1,):
        return [tangents.reshape(len(tangents), *run.result.shape)]
    if (name in ("clone", "contiguous", "detach") or name in RANDOM) and run.places == [0]:
        return [tangents]  # dropout that is on was refused
    if name in ("add", "sub", "radd") and not run.overwrites and not run.kwargs:
        shape = run.result.shape
        sides = [_spread(rows.tangents, shape) for rows in inputs]
        if len(sides) == 2:
            return [sides[0] - sides[1] if name == "sub" else sides[0] + sides[1]]
        sign = -1 if name == "sub" and run.places == [1] else 1
        return [sides[0].expand(-1, *shape) * sign]
    return None


def _spread(rows, shape):
    return rows.reshape(len(rows), *[1] * (len(shape) - rows.dim() + 1), *rows.shape[1:])


PROPERTIES = frozenset(("T", "mT", "H", "mH", "data", "real"))


class LineCall(Call):
    """One call, its arguments as leaves, and which of them depend on the line.

    Attributes
    ----------
    word
        The operation without underscores, or the attribute that is read: what the tables of this file are by.
    places
        Which of the leaves depend on the line; set by the interpreter.
    """

    def __init__(self, func, args, kwargs, path):
        super().__init__(func, args, kwargs, path)
        self.leaves, self.spec = tree_flatten((self.args, self.kwargs))
        self.word, self.places = (self.attribute or self.op).strip("_"), []

    @cached_property
    def result(self):
        """The ordinary result, computed once."""
        return self.plain()

    @cached_property
    def outputs(self) -> list[Tensor]:
        """The tensors that it gives, or that it writes into."""
        return [self.leaves[0]] if self.overwrites else [
            part for part in tree_flatten(self.result)[0] if isinstance(part, Tensor)]

    def of(self, *inputs):
        """The call on other tensors in the places of those that depend on the line; never in place."""
        leaves = list(self.leaves)
        for place, value in zip(self.places, inputs, strict=True):
            leaves[place] = value
        if self.overwrites:
            # A constant that is written into becomes one tensor for each piece: vmap needs it to depend on one.
            target = leaves[0] = leaves[0].clone() if 0 in self.places else \
                leaves[0] + torch.zeros_like(inputs[0]).sum().to(leaves[0].dtype)
        args, kwargs = tree_unflatten(leaves, self.spec)
        found = self.func(*args, **kwargs)
        return target if self.overwrites else found

    def over(self, inputs):
        """The call on each of the pieces: inputs ``(n, *shape)``."""
        return torch.func.vmap(self.of)(*[part.contiguous() if self.word == "view" else part for part in inputs])

    def replay(self, place, number):
        """A function that repeats this view on rows ``(n, *shape)``, and gives its output of that number."""
        def one(value):
            leaves = list(self.leaves)
            leaves[place] = value
            args, kwargs = tree_unflatten(leaves, self.spec)
            found = self.func(*args, **kwargs)
            return found if isinstance(found, Tensor) else found[number]

        return torch.func.vmap(one)

    def homogeneous(self) -> bool:
        """Whether all tensors among the arguments that are numbers depend on the line."""
        return all(not isinstance(leaf, Tensor) or i in self.places or not leaf.is_floating_point()
                   for i, leaf in enumerate(self.leaves))

    def linear(self) -> bool:
        """Whether a call that is straight in each tensor is straight in those that depend on the line."""
        if self.word in ("div", "divide", "true_divide", "truediv"):
            return self.places == [0] and self.kwargs.get("rounding_mode") is None
        if self.word == "batch_norm":
            training = self.affine_parts()[0].get("training") if self.is_affine else self.leaves[5]
            return self.places == [0] and not training
        return len(self.places) == 1 or self.word in SUMS

    def floating(self) -> bool:
        """Whether everything it returns has slopes (a cast to integers has none)."""
        return all(part.is_floating_point() or part.is_complex() for part in self.outputs)

    def slopes(self, inputs, tangents):
        """Values and slopes of every output on each piece: ``[(values, slopes or None)]``."""
        moving = [i for i, part in enumerate(tangents) if part is not None]
        count = max(len(part) for part in [*inputs, *[tangents[i] for i in moving]])
        # In one layout: torch copies a tangent into its value's, which an expanded value's does not allow.
        inputs = [part.contiguous().expand(count, *part.shape[1:]) for part in inputs]
        tangents = [None if part is None else part.contiguous() for part in tangents]
        nothing_floats = not any(part.is_floating_point() for part in self.outputs)

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
            raise refusal("no line", self.place, text=str(error).splitlines()[0]) from error
        floats, rise, others = iter(floats), iter(rise), iter(others)
        return [(next(floats), next(rise)) if part.is_floating_point() else (next(others), None)
                for part in self.outputs]
