"""Recurrent layers step by step, in plain operations: what torch computes in one call that shows none of its units.

`UNROLLED` has, under the name of torch's own function (`rnn_relu`, `rnn_relu_cell`, `lstm`, …), a function with the
same arguments and results. The arguments are those that `nn.RNN`, `nn.LSTM`, `nn.GRU` and their cells pass.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["UNROLLED"]


def _plain(activation: Callable) -> Callable:
    """One step of `nn.RNN`: ``step(x (B, n), state, weights) -> state``, a state being a tuple of ``(B, hidden)``."""
    def step(x, state, w_ih, w_hh, b_ih=None, b_hh=None):
        return (activation(F.linear(x, w_ih, b_ih) + F.linear(state[0], w_hh, b_hh)),)
    return step


def _lstm(x, state, w_ih, w_hh, *rest):
    # Two biases, then the projection of the hidden state, are there or not.
    b_ih, b_hh = rest[:2] if len(rest) > 1 else (None, None)
    enter, forget, new, leave = (F.linear(x, w_ih, b_ih) + F.linear(state[0], w_hh, b_hh)).chunk(4, -1)
    memory = forget.sigmoid() * state[1] + enter.sigmoid() * new.tanh()
    hidden = leave.sigmoid() * memory.tanh()
    return (F.linear(hidden, rest[-1]) if len(rest) % 2 else hidden), memory


def _gru(x, state, w_ih, w_hh, b_ih=None, b_hh=None):
    (reset, update, new), old = F.linear(x, w_ih, b_ih).chunk(3, -1), F.linear(state[0], w_hh, b_hh).chunk(3, -1)
    new = (new + (reset + old[0]).sigmoid() * old[2]).tanh()
    return (new + (update + old[1]).sigmoid() * (state[0] - new),)


_STEPS = {"rnn_relu": _plain(torch.relu), "rnn_tanh": _plain(torch.tanh), "lstm": _lstm, "gru": _gru}


def _layers(name: str) -> Callable:
    """All time steps, layers and directions, as `torch.rnn_relu` and its kin have them."""
    def run(x, state, weights, *options):
        if not isinstance(weights, list | tuple) or (isinstance(state, Tensor) and not state.is_floating_point()):
            # A PackedSequence, whose second argument are the batch sizes: one call, in which units are out of sight.
            return getattr(torch, name)(x, state, weights, *options)
        weights, (_, layers, dropout, train, both_ways, batch_first) = list(weights), options
        state = [state] if isinstance(state, Tensor) else list(state)
        directions, each = 1 + both_ways, len(weights) // (layers * (1 + both_ways))
        x, last = x.transpose(0, 1) if batch_first else x, []
        for layer in range(layers):
            x, sides = F.dropout(x, dropout, train) if layer and dropout else x, []
            for turned in range(directions):
                k, found = layer * directions + turned, []
                now = tuple(part[k] for part in state)
                for moment in reversed(x.unbind(0)) if turned else x.unbind(0):
                    now = _STEPS[name](moment, now, *weights[k * each:(k + 1) * each])
                    found.append(now[0])
                sides.append(torch.stack(found[::-1] if turned else found))
                last.append(now)
            x = torch.cat(sides, -1) if both_ways else sides[0]
        return (x.transpose(0, 1) if batch_first else x), *(torch.stack(part) for part in zip(*last, strict=True))
    return run


def _cell(name: str) -> Callable:
    def run(x, state, *weights):
        found = _STEPS[name](x, (state,) if isinstance(state, Tensor) else state, *weights)
        return found[0] if len(found) == 1 else found
    return run


UNROLLED: dict[str, Callable] = {name: _layers(name) for name in _STEPS} \
    | {f"{name}_cell": _cell(name) for name in _STEPS}
