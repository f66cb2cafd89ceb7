"""How the networks of the notebooks are trained: Adam, with a learning rate that follows a schedule."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

__all__ = ["adam"]


def adam(loss: Callable[[int], Tensor], parameters: Iterable[Tensor], rate: float, steps: int, *, cosine: bool = False,
         warm_up: float = 0.3, longest: float | None = None) -> None:
    """Minimise by Adam, in place.

    Parameters
    ----------
    loss
        ``loss(step)`` is the scalar to be differentiated, from step 0 on.
    parameters
        What is changed.
    rate
        The highest learning rate. It falls along half a cosine where ``cosine``; else it first rises for a share
        ``warm_up`` of the steps, from a 25th (`torch.optim.lr_scheduler.OneCycleLR`).
    steps
        How many.
    longest
        Gradients are scaled to this norm where theirs is larger.
    """
    parameters = list(parameters)
    optimiser = torch.optim.Adam(parameters, lr=rate)
    if cosine:
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    else:
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=max(steps, 1), pct_start=warm_up)
    for step in range(steps):
        found = loss(step)
        optimiser.zero_grad()
        found.backward()
        if longest is not None:
            torch.nn.utils.clip_grad_norm_(parameters, longest)
        optimiser.step()
        schedule.step()
