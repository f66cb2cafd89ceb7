# ruff: noqa: SIM905  (tables of names: one word each reads better than quotes around each)
"""One call of a torch function on tensors that depend on a line, to be repeated on every piece of it."""

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from smpcore._straight import SUMS

__all__ = ["ANEW", "IN_PLACE", "PROPERTIES", "RANDOM", "TAKES_OUT", "Call"]

#: Calls that take numbers out of tensors, where no trace can follow.
TAKES_OUT = frozenset("item tolist numpy __array__ __bool__ __int__ __float__ __index__ __complex__ "
                       "is_nonzero equal allclose __contains__ __format__".split())
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
        return torch.func.vmap(self.of)(*inputs)

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
        return all(part.is_floating_point() for part in flat if isinstance(part, Tensor))

    def slopes(self, inputs, tangents, scope: str):
        """Values and slopes of every output on each piece: ``[(values, slopes or None)]``."""
        moving = [i for i, part in enumerate(tangents) if part is not None]
        flat, _ = tree_flatten(self.leaves[0] if self.in_place else self.result())
        count = max(len(part) for part in [*inputs, *[tangents[i] for i in moving]])
        inputs = [part.expand(count, *part.shape[1:]) for part in inputs]

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

