"""Image models in common use, with random weights: built from configurations of `transformers` without a download.

They show that attribution works on code that was not written for it. Only their depth is reduced, because further
layers of the same kind would take time and test nothing new. The extra `smpcore[architectures]` installs what they
need.
"""

import torch
from torch import nn

import smpcore
from smpcore.arguments import checked, one_of, whole

__all__ = ["ARCHITECTURES", "build", "logits"]

#: By name: the name of its class in `transformers`, and its configuration.
ARCHITECTURES = {
    "resnet": ("ResNet", {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}),
    "convnext": ("ConvNext", {"depths": [1, 1, 2, 1]}),
    "vit": ("ViT", {"num_hidden_layers": 3, "hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768,
                    "attn_implementation": "eager"}),
}


@checked(name=one_of(ARCHITECTURES), seed=whole(0))
def build(name: str, *, seed: int = 0, **changes) -> nn.Module:
    """An untrained image classifier with four classes, in evaluation mode, float32.

    Parameters
    ----------
    name
        ``"resnet"``: ResNet-18, in full depth. ``"convnext"``: the widths of ConvNeXt-T, five of its eighteen
        blocks. ``"vit"``: the width of ViT-Ti, three of its twelve blocks, attention written out ("eager"), for
        the fused one carries no tangent on the CPU. All take images ``(P, 3, 224, 224)``.
    seed
        Of the weights.
    **changes
        Other values for its configuration, such as ``depths`` or ``num_labels``.

    Raises
    ------
    ValueError
        For a name that is none of the three.
    ModuleNotFoundError
        Where `transformers` is not installed.
    """
    transformers = smpcore.need("transformers")
    kind, settings = ARCHITECTURES[name]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**{"num_labels": 4, **settings, **changes})
    return getattr(transformers, f"{kind}ForImageClassification")(config).eval()


def logits(returned) -> torch.Tensor:
    """The first two logits of what such a model returns, for the argument ``outputs``: ``(P, 2)``."""
    return returned.logits[:, :2]
