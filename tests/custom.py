"""Custom autograd functions, inside which nothing is seen."""

import torch


class Backward(torch.autograd.Function):
    """A derivative backward, and none forward."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class Doubled(Backward):
    """Both derivatives."""

    @staticmethod
    def jvp(ctx, tangent):
        return 2 * tangent


class Steep(Doubled):
    """A derivative forward, and none that is finite backward."""

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 0
