"""Residual networks as they are used: torchvision's ResNet-18, written out since torchvision cannot always be imported,
and those of transformers, from configurations.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

import torch
from torch import Tensor, nn

__all__ = ["Logits", "ResNet18", "from_transformers"]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a sum; a 1×1 convolution beside them where the shape changes."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample = None
        if stride > 1 or before != width:
            self.downsample = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """``(P, 3, H, W)`` to ``(P, classes)``; ``width`` 64 in the original."""

    def __init__(self, classes: int = 1000, width: int = 64):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        before = width
        for n, (factor, stride) in enumerate(((1, 1), (2, 2), (4, 2), (8, 2)), 1):
            layer = nn.Sequential(BasicBlock(before, factor * width, stride),
                                  BasicBlock(factor * width, factor * width, 1))
            setattr(self, f"layer{n}", layer)
            before = factor * width
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Logits(nn.Module):
    """A classifier of transformers, with its logits as the output."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).logits


def from_transformers(name: str, seed: int, **settings) -> nn.Module:
    """An untrained classifier of transformers, by the name of its architecture, such as ``ResNet``."""
    import transformers

    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**settings)
    return Logits(getattr(transformers, f"{name}ForImageClassification")(config)).eval()
