"""Carry the pieces of a line through one ordinary forward pass.

`Carrier` is a `TorchFunctionMode`: the model runs as it is, on the one input at the stretch's left end, and
every call on a tensor that depends on the line is told apart:

- *straight* (convolution, batch norm, views, sums): acts on the tangents, one row for each piece;
- a *unit of the table* (ReLU, max pooling, …): cuts the pieces in which it switches, then picks tangents;
- *anything else* (GELU, a mask times its input, a product of two branches): is evaluated at three points of
  each piece, and where it is not straight there, or does not join up, the stretch becomes a gap by name.

The model sees one sample in each batch; pieces live in a hidden dimension (`torch.func.vmap`), so that it may
permute, index and reshape as it likes.
"""

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from smpcore.inspection.module_scope import Opening
from smpcore.tracing.piecewise import Line, Rows, each
from smpcore.tracing.straight_ops import (
    ANEW,
    HOMOGENEOUS,
    IN_PLACE,
    PROPERTIES,
    RANDOM,
    READERS,
    STRAIGHT,
    TAKES_OUT,
    Call,
    tangents_of,
)
from smpcore.tracing.unit_cuts import crossings, follow
from smpcore.units.table import canonical

__all__ = ["Carrier", "rows_of", "start_rows"]

# Evaluated just inside both ends of a piece and in its middle: a straight operation agrees at all three.
_INSIDE = 1e-6


def rows_of(tensor: Tensor) -> Rows | None:
    """What a tensor does along the line, None where it does not depend on it."""
    return getattr(tensor, "_line_rows", None)


def start_rows(tensor: Tensor, rows: Rows) -> Tensor:
    """Mark a tensor as depending on the line."""
    tensor._line_rows, tensor._line_alias, tensor._line_stamp = rows, None, 0
    return tensor


class Carrier(Opening):
    """Follows every call of a model on one stretch of a line.

    Attributes
    ----------
    line
        The pieces.
    widths
        ``widths[k]``: the most numbers that a tensor from unit k on holds on one piece, known from an earlier
        stretch; with ``room``, the numbers that a tensor may hold, it bounds the pieces.
    layers
        Names of the calls that can switch, in order of execution.
    gaps
        ``(left, right, reason)`` of stretches in which some operation was not straight.
    """

    def __init__(self, line: Line, scope, tolerance: float, widths=(), room: int = 1 << 62):
        super().__init__()
        self.line, self.scope, self.tolerance = line, scope, tolerance
        self.widths, self.room = widths, room
        self.layers: list[str] = []
        self.gaps: list[tuple[float, float, str]] = []
        self.sizes: list[tuple[int, int]] = []  # (units before it, its numbers on one piece) of each tensor
        self._calls: dict[str, int] = {}

    def __torch_function__(self, func, types_, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves, spec = tree_flatten((args, kwargs))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and rows_of(leaf) is not None]
        name = getattr(func, "__name__", str(func))
        if not places or name in ANEW:
            return func(*args, **kwargs)
        if name == "__get__":
            name = getattr(func.__self__, "__name__", "")
            if name not in PROPERTIES:
                return func(*args, **kwargs)
        if name in READERS:
            return func(*args, **kwargs)
        if name != "__setitem__":
            inside = self.inside(func)
            if inside is not None:
                return inside(*args, **kwargs)
        return self._call(func, name, leaves, spec, places)

    # One call -----------------------------------------------------------------------------------------------

    def _call(self, func, name, leaves, spec, places):
        if name == "__set__":
            raise ValueError(f"{self.scope()} assigns to an attribute of a tensor (such as x.data = …), which is "
                             "not followed: assign to a name instead")
        if tree_unflatten(leaves, spec)[1].get("out") is not None:
            raise ValueError(f"{self.scope()}:{name} writes into out=…, which is not followed: assign instead")
        in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__")) \
            or (name.startswith("__i") and name[3:].rstrip("_") in IN_PLACE)
        if name in TAKES_OUT:
            raise ValueError(
                f"{self.scope()}: the model takes numbers out of a tensor ({name}), so what it does may depend on "
                "the input in a way that the trace cannot see: keep them in tensors, or measure with smp from "
                "samples")
        op = canonical(func)[0] if name not in PROPERTIES else name
        target = leaves[0] if in_place else None
        if in_place and rows_of(target) is None and target._base is not None:
            raise ValueError(
                f"{self.scope()}:{name} writes what depends on the line into a view of a constant tensor, which "
                "is not followed: build the tensor with cat or stack instead")
        if op in RANDOM and bool(tree_unflatten(leaves, spec)[0][RANDOM[op]]):
            raise ValueError(f"{self.scope()}:{op} draws random numbers in training mode, so that the output is "
                             "not a function of the input: call model.eval() first")
        for i in places:
            self._fresh(leaves[i])
        run = Call(func, op, leaves, spec, places, in_place)
        if not in_place and not any(isinstance(out, Tensor) for out in tree_flatten(run.result())[0]):
            return run.result()
        rows = follow(self, run)
        if rows is None:
            rows = self._other(run)
        return self._record(run, rows, target)

    def _record(self, run, rows, target):
        """Hand the ordinary result on, its rows attached."""
        first = run.result()
        outputs, _ = tree_flatten(first)
        if target is not None:
            outputs = [target]
        tensors = [out for out in outputs if isinstance(out, Tensor)]
        for number, (out, found) in enumerate(zip(tensors, rows, strict=True)):
            if found is None:
                continue
            self.sizes.append((len(self.layers), out.numel()))
            # A copy: the model may write into the tensor later, a ReLU that waits must not see it.
            found.first = out.detach().clone()
            if target is not None:
                self._written(out, found)
                continue
            if rows_of(out) is not None and any(out is run.leaves[i] for i in run.places):
                continue
            start_rows(out, found)
            for i in run.places:
                source = run.leaves[i]
                if source.untyped_storage().data_ptr() == out.untyped_storage().data_ptr() and out.numel():
                    out._line_alias = (source, run.replay(i, number), source._line_stamp)
                    break
        return first

    def _other(self, run) -> list[Rows]:
        """A call that is not in the table of units: straight by name, or looked at."""
        inputs = self.all_rows([run.leaves[i] for i in run.places])
        moving = [rows for rows in inputs if rows.tangents is not None]
        exact = all(rows.values is None for rows in inputs)
        if moving and exact and len(moving) == len(inputs):
            found = tangents_of(run, inputs)
            if found is not None:
                return [None if part is None else Rows(self.line.version, None, part) for part in found]
            floating = run.floating()
            if floating and run.name in HOMOGENEOUS and run.homogeneous():
                found, _ = tree_flatten(run.over([rows.tangents for rows in inputs]))
                return [Rows(self.line.version, None, part) for part in found if isinstance(part, Tensor)]
            if floating and run.name in STRAIGHT and run.linear():
                found = run.slopes([rows.first[None] for rows in inputs], [rows.tangents for rows in inputs],
                                   self.scope())
                return [Rows(self.line.version, None, part) for _, part in found]
        return self._looked_at(run, inputs)

    def _looked_at(self, run, inputs) -> list[Rows]:
        line = self.line
        points = [run.slopes([line.at(rows, fraction) for rows in inputs], [rows.tangents for rows in inputs],
                             self.scope()) for fraction in (_INSIDE, 0.5, 1 - _INSIDE)]
        results = []
        for (low, rise), (middle, mid_rise), (high, late_rise) in zip(*points, strict=True):
            if rise is None:
                off = (low != middle) | (middle != high)
                self._gap(_any(off), f"{run.name} changes")
                results.append(Rows(line.version, None, None, middle))
                continue
            length = each(line.lengths, low)
            ahead = low + length * (0.5 - _INSIDE) * rise
            beyond = middle + length * (0.5 - _INSIDE) * mid_rise
            scale = 1e-30 + max(float(part.abs().max()) if part.numel() else 0.0 for part in (low, high))
            steep = 1e-30 + float(torch.stack([rise.abs().amax(), late_rise.abs().amax()]).max()) \
                if rise.numel() else 1.0
            bent = ((ahead - middle).abs() > self.tolerance * scale) \
                | ((beyond - high).abs() > self.tolerance * scale) \
                | ((rise - mid_rise).abs() > self.tolerance * steep) \
                | ((rise - late_rise).abs() > self.tolerance * steep)
            bent = _any(bent)
            self._gap(bent, f"{run.name} is not straight")
            left = middle - length * 0.5 * mid_rise
            stop = middle[:-1] + (length * 0.5 * mid_rise)[:-1]
            torn = _any((left[1:] - stop).abs() > self.tolerance * scale)
            no = torn.new_zeros(1)
            torn = torch.cat([torn, no]) | torch.cat([no, torn])
            self._gap(torn, f"{run.name} jumps in value")
            broken = bool((bent | torn).any()) or any(rows.values is not None for rows in inputs)
            results.append(Rows(line.version, None, mid_rise, left if broken else None))
        return results

    def whole_gap(self, reason: str) -> None:
        """The whole stretch is a gap."""
        self.gaps.append((float(self.line.knots[0]), float(self.line.knots[-1]), f"{self.scope()}: {reason}"))

    def _gap(self, pieces: Tensor, reason: str) -> None:
        for piece in pieces.nonzero()[:, 0].tolist():
            self.gaps.append((float(self.line.knots[piece]), float(self.line.knots[piece + 1]),
                              f"{self.scope()}: {reason}"))

    # Tensors and the tensors they share memory with ---------------------------------------------------------

    def rows(self, tensor: Tensor) -> Rows:
        """Up-to-date rows of a tensor; a ReLU that waited is carried out."""
        self._fresh(tensor)
        rows = rows_of(tensor)
        if rows.before is not None:
            before, layer = rows.before
            tangents = self._rectify(before, layer)
            rows = Rows(self.line.version, rows.first, tangents)
        tensor._line_rows = self.line.bring(rows)
        return tensor._line_rows

    def all_rows(self, tensors: list[Tensor]) -> list[Rows]:
        """Up-to-date rows of several tensors: reading one may cut the line for all."""
        found = [self.rows(tensor) for tensor in tensors]
        return [self.line.bring(rows) for rows in found]

    def _rectify(self, before: Rows, layer: int) -> Tensor:
        before = self.line.bring(before)
        left, right = self.line.ends(before)
        parents, middle = self.cut(left, before.tangents, *crossings(left, right), layer)
        return (before.tangents if parents is None else before.tangents[parents]) * (middle > 0)

    def cut(self, left: Tensor, tangents: Tensor, piece: Tensor, fraction: Tensor, layer):
        """Cut the line where a unit of ``layer`` switches, and look at its input inside the new pieces.

        Parameters
        ----------
        left, tangents
            ``(n, *shape)``: the input's values at left knots, and slopes, on the pieces before the cut.
        piece, fraction, layer
            ``(k,)`` each: where; the layer may be one number.

        Returns
        -------
        parents
            ``(n',)``: the piece before the cut that each piece is a part of; None where all stay as they are.
        middle
            ``(n', *shape)``: the input's values in the pieces' middles.
        """
        line = self.line
        knots = line.knots
        parents = self.cut_only(piece, fraction, layer)
        if parents is None:
            return None, torch.addcmul(left, each(line.lengths * 0.5, left), tangents)
        since = (line.knots[1:] + line.knots[:-1]) / 2 - knots[parents]
        return parents, torch.addcmul(left[parents], each(since, left), tangents[parents])

    def cut_only(self, piece: Tensor, fraction: Tensor, layer) -> Tensor | None:
        """`cut`, for a unit that needs no values behind it."""
        knots = self.line.knots
        number = int(layer if isinstance(layer, int) else layer.max()) if piece.numel() else 0
        room = self.room // max(1, self.widths[number] if number < len(self.widths) else 1)
        times = knots[piece] + fraction.to(knots.dtype) * self.line.lengths[piece]
        return self.line.cut(times, layer, room)

    def layer(self, op: str, numbers: int) -> int:
        """The number of a new call that can switch, named ``module.path:op``, with its input's size."""
        self.sizes.append((len(self.layers) + 1, numbers))
        scope = self.scope()
        name = f"{scope}:{op}"
        self._calls[name] = self._calls.get(name, 0) + 1
        if self._calls[name] > 1:
            name = f"{name}#{self._calls[name]}"
        self.layers.append(name)
        return len(self.layers) - 1

    def _fresh(self, tensor: Tensor) -> None:
        """Read a view again where what it looks at was written since."""
        alias = tensor._line_alias
        if alias is None:
            return
        source, replay, stamp = alias
        self._fresh(source)
        if source._line_stamp != stamp:
            rows = self.rows(source)
            tensor._line_rows = Rows(
                rows.version, tensor.detach().clone(),
                None if rows.tangents is None else replay(rows.tangents),
                None if rows.values is None else replay(rows.values))
            tensor._line_alias = (source, replay, source._line_stamp)
            tensor._line_stamp += 1

    def _written(self, tensor: Tensor, rows: Rows) -> None:
        """An in-place result: the tensor's new rows, and those of what it is a view of."""
        if rows_of(tensor) is None:
            start_rows(tensor, rows)
            return
        alias = tensor._line_alias
        tensor._line_rows = rows
        tensor._line_stamp += 1
        if alias is None:
            return
        source, replay, _ = alias
        if rows.before is not None:
            rows = self.rows(tensor)
        whole = self.rows(source)
        rows = self.rows(tensor)
        places = replay(torch.arange(source.numel(), device=source.device).view(1, *source.shape))[0].flatten()

        def put(old, new):
            if old is None or new is None:
                return None
            old = old.clone().flatten(1)
            old[:, places] = new.flatten(1)
            return old.view(len(old), *source.shape)

        values = None
        if whole.values is not None or rows.values is not None:
            values = put(self.line.left(whole), self.line.left(rows))
        # The memory was written already; what stood before at the left end is only in the rows.
        self._written(source, Rows(rows.version, source.detach().clone(), put(whole.tangents, rows.tangents),
                                   values))
        tensor._line_alias = (source, replay, source._line_stamp)


def _any(found: Tensor) -> Tensor:
    """``(n,)``: whether any number of each piece is true."""
    return found.flatten(1).any(1) if found.dim() > 1 else found
