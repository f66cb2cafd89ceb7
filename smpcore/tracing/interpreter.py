"""Carry the pieces of a line through one ordinary forward pass.

`Carrier` is an `inspection.calls.Interpreter`: the model runs as it is, on the one input at the stretch's left end,
and every call on a tensor that depends on the line is one of three:

- *straight* (convolution, batch norm, views, sums): acts on the tangents, one row for each piece;
- a *unit of the table* (ReLU, max pooling, …): cuts the pieces in which it switches, then picks tangents;
- *anything else* (GELU, a mask times its input, a product of two branches): is evaluated at three points of
  each piece, and where it is not straight there, or does not join up, the stretch becomes a gap by name.

The model sees one sample in each batch; pieces live in a hidden dimension (`torch.func.vmap`), so that it may
permute, index and reshape as it likes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from smpcore.inspection.calls import Interpreter
from smpcore.inspection.operations import FORM_OF, TAKES_OUT, takes_form_alone
from smpcore.inspection.refusals import refusal, sentence
from smpcore.tracing.piecewise import Record, Rows, each
from smpcore.tracing.straight_ops import HOMOGENEOUS, LINEAR, PROPERTIES, STRAIGHT, LineCall, tangents_of
from smpcore.tracing.unit_cuts import follow, settle, settled

__all__ = ["Carrier"]

# Evaluated just inside both ends of a piece and in its middle: a straight operation agrees at all three.
_INSIDE = 1e-6


@dataclass
class _Tag:
    """What a tensor that depends on the line carries along.

    Attributes
    ----------
    record
        Of the stretch that it was met on: a tag of an earlier stretch, on a tensor that a model keeps, is void.
    rows
        What the tensor does on the pieces.
    alias
        Of a view: the tensor that it looks at, how rows of that become its own, and how often that had been written.
    written
        How often the tensor was written into.
    """

    record: Record
    rows: Rows
    alias: tuple | None = None
    written: int = 0


class Carrier(Interpreter):
    """Follows every call of a model on one stretch of a line, and notes in a `Record` what it finds."""

    kind_of_call = LineCall

    def __init__(self, record: Record):
        super().__init__(record.scope)
        self.record = record

    def start(self, tensor: Tensor, rows: Rows) -> None:
        """Mark a tensor as depending on the line."""
        tensor._line = _Tag(self.record, rows)

    def _tag(self, tensor: Tensor) -> _Tag | None:
        tag = getattr(tensor, "_line", None)
        return tag if tag is not None and tag.record is self.record else None

    def rows(self, tensor: Tensor) -> Rows:
        """What a tensor does on the pieces as they are now."""
        if self._tag(tensor) is None:
            return self.record.line.constant(tensor)
        return settle(self.record, self._fresh(tensor).rows)

    def call(self, run: LineCall):
        places = [i for i, leaf in enumerate(run.leaves) if isinstance(leaf, Tensor) and self._depends(leaf, run)]
        if run.op in FORM_OF:
            places = [i for i in places if i == 0]
        if not places or takes_form_alone(run.op) or run.op == "requires_grad" \
                or (run.op == "__get__" and run.word not in PROPERTIES):
            return run.plain()
        inside = None if run.is_affine else self.inside(run.func)
        if inside is not None:
            return inside(*run.args, **run.kwargs)
        self._refuse(run)
        if not run.overwrites and not run.outputs:
            return run.result  # a form, such as x.size()
        run.places = places
        inputs = [self._fresh(run.leaves[i]).rows for i in places]
        rows = follow(self.record, run, inputs)
        if rows is None:
            rows = self._other(run, settled(self.record, inputs))
        return self._noted(run, rows)

    def _depends(self, tensor: Tensor, run: LineCall) -> bool:
        if self._tag(tensor) is not None:
            return True
        if tensor._base is not None and self._tag(tensor._base) is not None and run.op != "__get__":
            raise refusal("early view", run.place)
        return False

    def _refuse(self, run: LineCall) -> None:
        """Refuse a call that no trace can follow."""
        run.refuse_random()
        if run.op == "__set__":
            raise refusal("assigned", run.place)
        if run.kwargs.get("out") is not None:
            raise refusal("out", run.place)
        if run.op in TAKES_OUT:
            raise refusal("takes out", run.place)
        if run.overwrites and self._tag(run.leaves[0]) is None and run.leaves[0]._base is not None:
            raise refusal("constant view", run.place)

    # One call -----------------------------------------------------------------------------------------------

    def _noted(self, run, rows):
        """Hand the ordinary result on, its rows attached."""
        first = run.result
        for number, (out, found) in enumerate(zip(run.outputs, rows, strict=True)):
            if found is None:
                continue
            self.record.sizes.append((len(self.record.layers), out.numel()))
            # A copy: the model may write into the tensor later, a ReLU that waits must not see it.
            found.first = out.detach().clone()
            if run.overwrites:
                self._written(out, found)
                continue
            if any(out is run.leaves[i] for i in run.places):
                continue
            self.start(out, found)
            for i in run.places:
                source = run.leaves[i]
                if source.untyped_storage().data_ptr() == out.untyped_storage().data_ptr() and out.numel():
                    out._line.alias = (source, run.replay(i, number), source._line.written)
                    break
        return first

    def _other(self, run, inputs) -> list[Rows]:
        """A call that is not in the table of units: straight by name, or looked at."""
        version = self.record.line.version
        if all(rows.values is None and rows.tangents is not None for rows in inputs):
            found = tangents_of(run, inputs)
            if found is not None:
                return [None if part is None else Rows(version, None, part) for part in found]
            if run.floating() and ((run.word in LINEAR and run.linear())
                                   or (run.word in HOMOGENEOUS and run.homogeneous())):
                found, _ = tree_flatten(run.over([rows.tangents for rows in inputs]))
                return [Rows(version, None, part) for part in found if isinstance(part, Tensor)]
            if run.floating() and run.word in STRAIGHT and run.linear():
                found = run.slopes([rows.first[None] for rows in inputs], [rows.tangents for rows in inputs])
                return [Rows(version, None, part) for _, part in found]
        return self._looked_at(run, inputs)

    def _looked_at(self, run, inputs) -> list[Rows]:
        record, line = self.record, self.record.line
        points = [run.slopes([line.at(rows, fraction) for rows in inputs], [rows.tangents for rows in inputs])
                  for fraction in (_INSIDE, 0.5, 1 - _INSIDE)]
        results = []
        for (low, rise), (middle, mid_rise), (high, late_rise) in zip(*points, strict=True):
            if rise is None:
                record.gap(sentence("changes", op=run.word), (low != middle) | (middle != high))
                results.append(Rows(line.version, None, None, middle))
                continue
            half = each(line.lengths * (0.5 - _INSIDE), low)
            scale, steep = (record.tolerance * (1e-300 + max(_largest(one), _largest(two)))
                            for one, two in ((low, high), (rise, late_rise)))
            bent = _any(((low + half * rise - middle).abs() > scale) | ((middle + half * mid_rise - high).abs() > scale)
                        | ((rise - mid_rise).abs() > steep) | ((rise - late_rise).abs() > steep))
            record.gap(sentence("bent", op=run.word), bent)
            half = each(line.lengths * 0.5, low) * mid_rise
            torn = _any((middle[1:] - half[1:] - middle[:-1] - half[:-1]).abs() > scale)
            no = torn.new_zeros(1)
            torn = torch.cat([torn, no]) | torch.cat([no, torn])
            record.gap(sentence("torn", op=run.word), torn)
            broken = bool((bent | torn).any()) or any(rows.values is not None for rows in inputs)
            results.append(Rows(line.version, None, mid_rise, middle - half if broken else None))
        return results

    # Tensors and the tensors they share memory with ---------------------------------------------------------

    def _fresh(self, tensor: Tensor) -> _Tag:
        """A tensor's tag; a view is read again where what it looks at was written since."""
        tag = tensor._line
        if tag.alias is not None:
            source, replay, written = tag.alias
            now = self._fresh(source).written
            if now != written:
                rows = self.rows(source)
                tag.rows = Rows(rows.version, tensor.detach().clone(),
                                None if rows.tangents is None else replay(rows.tangents),
                                None if rows.values is None else replay(rows.values))
                tag.alias = (source, replay, now)
                tag.written += 1
        return tag

    def _written(self, tensor: Tensor, rows: Rows) -> None:
        """An in-place result: the tensor's new rows, and those of what it is a view of."""
        if self._tag(tensor) is None:
            self.start(tensor, rows)
            return
        tag = tensor._line
        tag.rows = rows
        tag.written += 1
        if tag.alias is None:
            return
        source, replay, _ = tag.alias
        whole, rows = settled(self.record, [source._line.rows, rows])
        places = replay(torch.arange(source.numel(), device=source.device).view(1, *source.shape))[0].flatten()

        def put(old, new):
            if old is None or new is None:
                return None
            old = old.clone().flatten(1)
            old[:, places] = new.flatten(1)
            return old.view(len(old), *source.shape)

        values = None
        if whole.values is not None or rows.values is not None:
            values = put(*(self.record.line.ends(part)[0] for part in (whole, rows)))
        # The memory was written already; what stood before at the left end is only in the rows.
        self._written(source, Rows(rows.version, source.detach().clone(), put(whole.tangents, rows.tangents),
                                   values))
        tag.alias = (source, replay, source._line.written)


def _any(found: Tensor) -> Tensor:
    """``(n,)``: whether any number of each piece is true."""
    return found.flatten(1).any(1) if found.dim() > 1 else found


def _largest(numbers: Tensor) -> float:
    return float(numbers.abs().amax()) if numbers.numel() else 0.0
