"""Devices by their names, and work in chunks that fit a device's memory."""

import math
from collections.abc import Callable, Iterator

import torch

from smpcore.arguments.kinds import DTYPE, FUNCTION, Kind, checked, whole

__all__ = ["chunks", "describe", "resolve"]


@checked(device=Kind((str, torch.device), ": it must be a name such as 'auto', 'cpu' or 'cuda:1'"), dtype=DTYPE)
def resolve(device: str | torch.device = "auto", dtype: torch.dtype = torch.float64) -> torch.device:
    """The torch device that a name stands for, checked to be there.

    Parameters
    ----------
    device
        ``"auto"`` (the first CUDA device where there is one, else the CPU), ``"cpu"``, ``"cuda"``,
        ``"cuda:1"`` and so on, or a `torch.device`.
    dtype
        The floating type that the work needs.

    Raises
    ------
    ValueError
        For a name that is not a device, a GPU that is not there, and a device without float64 (MPS) where
        float64 is needed.
    TypeError
        For a device that is not a string or a `torch.device`, a dtype that is not a floating one.
    """
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is not known: name 'auto', 'cpu', 'cuda' or one GPU such as 'cuda:1'"
                         ) from error
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = found.index or 0
        if index >= count:
            found = f"{count or 'no'} GPU{'s' * (count != 1)}"
            raise ValueError(f"device {str(device)!r} was named, but torch sees {found} here: use 'auto' or 'cpu', or "
                             "check the driver and the build of torch")
        return torch.device("cuda", index)
    if found.type == "mps" and dtype == torch.float64:
        raise ValueError("device 'mps' has no float64, in which kinks are measured: use 'cpu', or ask for "
                         "dtype=torch.float32")
    if found.type not in ("cpu", "mps"):
        raise ValueError(f"device {str(device)!r} is not supported: name 'auto', 'cpu', 'cuda' or 'cuda:1'")
    return found


@checked(device=Kind(torch.device, ": it must be a torch.device, as resolve() gives it"))
def describe(device: torch.device) -> str:
    """A device in words: ``"cpu"``, or ``"cuda:0 (name of the GPU)"``.

    Raises
    ------
    TypeError
        For what is not a `torch.device`.
    """
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


@checked(work=FUNCTION, count=whole(0), size=whole(0), overlap=whole(0))
def chunks(work: Callable[[int, int], object], count: int, size: int, *, overlap: int = 0) -> Iterator[object]:
    """Run ``work(start, stop)`` over ``range(count)`` in pieces of at most ``size``, and yield each result.

    Where a piece runs out of memory, the size is halved and the piece is tried again, down to one step.

    Parameters
    ----------
    work
        Called with a half-open range; only its result survives, so that a failed piece frees what it held.
    count
        How many items there are.
    size
        The largest piece, at least 1 + overlap; for an attribution `attribution.measurement.chunk_size` decides it.
    overlap
        Items that consecutive pieces share: 1 for intervals between samples, or a switch between two pieces
        would be lost.

    Raises
    ------
    TypeError, ValueError
        For work that is not a function, sizes that are not whole numbers.
    MemoryError
        Where the smallest piece does not fit either.
    """
    start, size = 0, max(size, overlap + 1)
    while start < count - overlap or start == 0 < count:
        stop = min(start + size, count)
        try:
            result = work(start, stop)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            length = stop - start
            if length <= overlap + 1:
                raise MemoryError(f"out of memory on {length} sample{'s' * (length > 1)} at once: use a device with "
                                  "more memory, or dtype=torch.float32") from error
            result = None
        if result is None:
            # Not inside the except clause, where the traceback keeps the tensors of the failed piece in memory.
            size = max(overlap + 1, math.ceil((stop - start) / 2))
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        yield result
        start = stop - overlap
        if stop == count:
            return


def _out_of_memory(error: BaseException) -> bool:
    return (isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)
            or "can't allocate memory" in str(error))
