"""Fully connected and convolutional networks of a given size, and the reference network."""

import functools
import math
from collections.abc import Sequence
from importlib import resources
from numbers import Integral

import numpy as np
import torch
from torch import nn

from smpcore.arguments import DTYPE, MODULE, Kind, checked, one_of, optional, several, whole

__all__ = ["ACTIVATIONS", "POOLINGS", "REFERENCE_SMP", "cnn", "he_initialise", "mlp", "reference_cnn",
           "reference_line"]

#: The activations that `mlp` and `cnn` know by name; a function that makes a module does as well.
ACTIVATIONS = {
    "relu": nn.ReLU, "leaky relu": nn.LeakyReLU, "prelu": nn.PReLU, "relu6": nn.ReLU6, "elu": nn.ELU,
    "gelu": nn.GELU, "silu": nn.SiLU, "softplus": nn.Softplus, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}

#: The poolings that `cnn` knows by name.
POOLINGS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}

_NOT_SIZES = ": it must be at least 1, a whole number or several of them"
_ACTIVATION = one_of(ACTIVATIONS, "a function that makes a module, or one of: ")._replace(
    holds=lambda value: callable(value) or value in list(ACTIVATIONS))
_INITIALISATION = Kind(object, ": it must be 'he' or 'torch'", lambda value: value in ["he", "torch"])

#: SMP of `reference_cnn` along `reference_line`: the sum over all 2,470 kinks of an exact transformation of
#: the line, with slopes taken inside every piece.
REFERENCE_SMP = 8.402243097653


@checked(inputs=several(whole(), _NOT_SIZES, or_one=True), outputs=whole(), width=whole(), depth=whole(),
         activation=_ACTIVATION, initialise=_INITIALISATION, seed=whole(0), dtype=DTYPE)
def mlp(inputs: int | tuple[int, ...], outputs: int = 1, *, width: int = 256, depth: int = 4,
        activation="relu", initialise: str = "he", seed: int = 0,
        dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """A fully connected network: ``depth`` hidden layers of ``width`` units, then a linear readout.

    Parameters
    ----------
    inputs
        The number of input values, or the shape of one input, which is then flattened.
    outputs
        The number of outputs.
    width, depth
        Units in a hidden layer, and hidden layers.
    activation
        A name in `ACTIVATIONS`, or a function without arguments that makes a module.
    initialise
        ``"he"`` (see `he_initialise`) or ``"torch"`` (the layers' own).
    seed
        Draws the weights, on the CPU and in float32 or wider: the same network on every device.
    dtype
        The network's floating type.

    Returns
    -------
    nn.Sequential
        (P, *inputs) -> (P, outputs), in evaluation mode.

    Raises
    ------
    TypeError, ValueError
        For sizes that are not whole numbers from 1 up, an unknown activation or initialisation, a seed under 0, a type
        that is not a floating one.
    """
    shape = (inputs,) if isinstance(inputs, Integral) else tuple(inputs)
    layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fan_in = math.prod(shape)
        for _ in range(depth):
            layers += [nn.Linear(fan_in, width), _activation(activation)]
            fan_in = width
        return _finished(nn.Sequential(*layers, nn.Linear(fan_in, outputs)), initialise, seed, dtype)


@checked(shape=several(whole(), ": it must be (channels, height, width), whole numbers of at least 1", 3),
         outputs=whole(), channels=several(whole(), _NOT_SIZES, or_one=True), depth=whole(),
         kernel=whole()._replace(holds=lambda side: side > 0 and side % 2 == 1,
                                 broken=": it must be odd, so that the picture keeps its size, and at least 1"),
         activation=_ACTIVATION, pooling=one_of(POOLINGS, "None or one of: ")._replace(
             holds=lambda value: value in [None, *POOLINGS]), pool=whole(), stride=optional(whole()),
         padding_mode=one_of(["zeros", "circular", "reflect", "replicate"]),
         hidden=several(whole(), _NOT_SIZES, least=0), initialise=_INITIALISATION, seed=whole(0), dtype=DTYPE)
def cnn(shape: tuple[int, int, int], outputs: int = 1, *, channels: int | Sequence[int] = 32, depth: int = 3,
        kernel: int = 3, activation="relu", pooling: str | None = None, pool: int = 2,
        stride: int | None = None, padding_mode: str = "zeros", hidden: Sequence[int] = (),
        initialise: str = "he", seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """A convolutional network: blocks of convolution, activation and pooling, then a linear readout.

    Parameters
    ----------
    shape
        (C, H, W) of one input.
    outputs
        The number of outputs.
    channels, depth
        Channels of each block and the number of blocks; a sequence of channels gives both.
    kernel
        The convolutions' side, odd; they keep the picture's size.
    activation
        A name in `ACTIVATIONS`, or a function without arguments that makes a module.
    pooling, pool, stride
        A name in `POOLINGS` or None, the window's side, and its step (the side where None).
    padding_mode
        Of the convolutions: ``"zeros"``, ``"circular"``, ``"reflect"`` or ``"replicate"``.
    hidden
        Widths of fully connected layers before the readout.
    initialise, seed, dtype
        As for `mlp`.

    Returns
    -------
    nn.Sequential
        (P, C, H, W) -> (P, outputs), in evaluation mode.

    Raises
    ------
    TypeError, ValueError
        As `mlp`; for a shape that is not (C, H, W), an even kernel, a picture too small for its poolings, an unknown
        pooling or padding.
    """
    widths = [channels] * depth if isinstance(channels, Integral) else list(channels)
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fan_in, *sides = shape
        for width in widths:
            layers += [nn.Conv2d(fan_in, width, kernel, padding=kernel // 2, padding_mode=padding_mode),
                       _activation(activation)]
            fan_in = width
            if pooling is not None:
                layers.append(POOLINGS[pooling](pool, stride))
                sides = [(side - pool) // (stride or pool) + 1 for side in sides]
                if min(sides) < 1:
                    raise ValueError(f"shape = {tuple(shape)}: too small for {len(widths)} such poolings")
        layers.append(nn.Flatten())
        fan_in *= math.prod(sides)
        for width in hidden:
            layers += [nn.Linear(fan_in, width), _activation(activation)]
            fan_in = width
        return _finished(nn.Sequential(*layers, nn.Linear(fan_in, outputs)), initialise, seed, dtype)


@checked(model=MODULE, seed=whole(0))
def he_initialise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw a network's weights anew, in place: variance 2/fan-in, in the first and the last layer 1/fan-in.

    K. He et al., "Delving Deep into Rectifiers", ICCV 2015: a ReLU halves the mean square of its input, which the
    factor 2 compensates. The first layer has no ReLU before it, and the readout need not keep the scale. Biases
    become 0. The first and the last layer are those that the model lists first and last.

    Parameters
    ----------
    model
        Any module; its linear and convolutional layers are drawn, others stay.
    seed
        Draws them, on the CPU in float64.

    Returns
    -------
    nn.Module
        The same model.

    Raises
    ------
    TypeError, ValueError
        For what is not a module, and for one without a linear or convolutional layer.
    """
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
    if not layers:
        raise ValueError("the model has no linear or convolutional layer to draw weights for")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for place, layer in enumerate(layers):
            gain = 1.0 if place in (0, len(layers) - 1) else 2.0
            draw = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
            layer.weight.copy_(draw * math.sqrt(gain / layer.weight[0].numel()))
            if layer.bias is not None:
                layer.bias.zero_()
    return model


def reference_cnn(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """The reference network: (P, 1, 28, 28) -> (P, 1), two convolutions with ReLU and max pooling.

    Its weights were drawn in float32 by PyTorch's own initialisation under seed 0, and are stored: a draw differs in
    its last bits from one instruction set to another. Along `reference_line` it has 2,470 kinks and SMP
    `REFERENCE_SMP`.
    """
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 1),
        )
    model.load_state_dict({name: _stored(name) for name in model.state_dict()})
    return model.to(dtype).eval()


def reference_line(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """The two ends, each (1, 28, 28), of the line that `reference_cnn` is measured on, t in [0, 1].

    Standard normal pixels, drawn in float32 under seed 1 and stored as the weights of `reference_cnn` are.
    """
    return _stored("start").to(dtype), _stored("end").to(dtype)


def _stored(name: str) -> torch.Tensor:
    """A tensor of the reference network, float32, by its name in reference.npz; a copy for each caller."""
    return torch.from_numpy(_reference()[name].copy())


@functools.cache
def _reference() -> dict[str, np.ndarray]:
    with resources.files("smpcore.models").joinpath("reference.npz").open("rb") as file:
        return dict(np.load(file))


def _finished(model: nn.Sequential, initialise: str, seed: int, dtype: torch.dtype) -> nn.Sequential:
    model = model.to(dtype)
    return (he_initialise(model, seed) if initialise == "he" else model).eval()


def _activation(activation) -> nn.Module:
    layer = (activation if callable(activation) else ACTIVATIONS[activation])()
    if not isinstance(layer, nn.Module):
        raise TypeError(f"activation: the function makes a {type(layer).__name__}, not a torch.nn.Module")
    return layer
