"""Counts how often a measurement makes a GPU wait for the CPU; it needs no GPU."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Transfers(TorchDispatchMode):
    """Counts operations at which the CPU waits for a GPU; it needs no GPU.

    ``reads``: numbers read out of a tensor (`item`, `bool`, `tolist` of one), each a transfer to the host.
    ``shapes``: operations whose result's size depends on the data (`nonzero`, indexing by a mask, `unique`).
    ``moves``: copies from one device to another; none where everything is on the CPU.

    >>> with Transfers() as seen:
    ...     _ = torch.ones(3).sum().item()
    >>> seen.reads, seen.shapes, seen.moves
    (1, 0, 0)
    """

    def __init__(self):
        super().__init__()
        self.reads = self.shapes = self.moves = 0

    @property
    def total(self) -> int:
        """All three together."""
        return self.reads + self.shapes + self.moves

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "equal", "is_nonzero"):
            self.reads += 1
        elif name in ("nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive"):
            self.shapes += 1
        elif name in ("index", "index_put_", "index_put"):
            # A mask among the indices is a nonzero inside.
            masks = [each for each in args[1] if each is not None and each.dtype in (torch.bool, torch.uint8)]
            self.shapes += bool(masks)
        elif name in ("_to_copy", "copy_") and isinstance(result, Tensor):
            devices = {part.device for part in tree_leaves((args, result)) if isinstance(part, Tensor)}
            self.moves += len(devices) > 1
        return result
