"""What every rule asks of its numbers, and the sentence that it gives where they fall short."""

import torch
from torch import Tensor


def tensors(**named) -> tuple[list[Tensor], torch.dtype]:
    """The arguments as float64 tensors on one device, and the floating type that the result goes back to.

    Scalars follow the tensors' device; integers count as float64.

    Raises
    ------
    TypeError
        For an argument that is not real numbers.
    ValueError
        For NaN or infinity, and for tensors on two devices.
    """
    given = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    floating = [value.dtype for value in given.values() if value.is_floating_point()]
    dtype = torch.float64 if not floating else max(floating, key=lambda kind: torch.finfo(kind).bits)
    devices = {value.device for value in given.values() if value.dim() > 0}
    if len(devices) > 1:
        where = ", ".join(f"{name} on {value.device}" for name, value in given.items())
        raise ValueError(f"the arguments are on different devices ({where}): move them to one")
    device = devices.pop() if devices else next((value.device for value in given.values()), None)
    result = []
    for name, value in named.items():
        try:
            # A plain number has float64's digits; torch by itself would keep only float32's.
            exact = torch.float64 if isinstance(value, float | int | list | tuple) else None
            tensor = torch.as_tensor(value, dtype=exact)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name} has to be a number or a tensor, not {type(value).__name__}") from error
        if tensor.is_complex():
            raise TypeError(f"{name} is complex: a rule takes real numbers")
        tensor = tensor.to(device=device, dtype=torch.float64)
        if not bool(torch.isfinite(tensor).all()):
            place = tuple(torch.nonzero(~torch.isfinite(tensor))[0].tolist())
            raise ValueError(f"{name} holds NaN or infinity{_at(place)}: every number has to be finite")
        result.append(tensor)
    return result, dtype


def positive(value: Tensor, name: str, advice: str) -> None:
    """Refuse a value of 0 or below."""
    if not bool((value > 0).all()):
        place = tuple(torch.nonzero(value <= 0)[0].tolist())
        raise ValueError(f"{name} = {value[place].item():g}{_at(place)}: it has to be positive; {advice}")


def not_negative(value: Tensor, name: str) -> None:
    """Refuse a value below 0."""
    if not bool((value >= 0).all()):
        place = tuple(torch.nonzero(value < 0)[0].tolist())
        raise ValueError(f"{name} = {value[place].item():g}{_at(place)}: it must not be negative")


def scalar(value: Tensor, name: str) -> None:
    """Refuse anything but one number."""
    if value.dim() > 0:
        raise ValueError(f"{name} has shape {tuple(value.shape)}: it is one number")


def covariance(matrix: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """A symmetric, positive semi-definite ``(..., k, k)``, with rounding's asymmetry taken out.

    The tolerance is that of ``dtype``, in which the caller held it.
    """
    if matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"{name} has shape {tuple(matrix.shape)}: it has to be (..., k, k)")
    with torch.no_grad():
        scale = matrix.abs().amax((-1, -2))
        slack = 1e3 * torch.finfo(dtype).eps * scale
        uneven = (matrix - matrix.mT).abs().amax((-1, -2))
        if bool((uneven > slack).any()):
            raise ValueError(f"{name} is not symmetric: two entries across its diagonal differ by "
                             f"{uneven.max().item():.3g}")
        even = (matrix + matrix.mT) / 2
        lowest = torch.linalg.eigvalsh(even)[..., 0]
        if bool((lowest < -slack).any()):
            raise ValueError(f"{name} is not positive semi-definite: its lowest eigenvalue is "
                             f"{lowest.min().item():.3g}, so no signals have these covariances")
    return (matrix + matrix.mT) / 2


def broadcast(**named: Tensor) -> torch.Size:
    """The common shape of the named tensors."""
    try:
        return torch.broadcast_shapes(*(value.shape for value in named.values()))
    except RuntimeError as error:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in named.items())
        raise ValueError(f"sizes do not match: {shapes}") from error


def _at(place: tuple[int, ...]) -> str:
    if not place:
        return ""
    return f" at index {place[0] if len(place) == 1 else place}"
