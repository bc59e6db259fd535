"""Encodes pictures to features, with or without trainable parts.

Shapes: B pictures, H x W pixels, M prompt tokens, W width of the visual tower, D features.
"""

import torch

from .backbones import Backbone
from .doors import DeepVisual


def encode_pictures(
    backbone: Backbone,
    images_BCHW: torch.Tensor,
    learns: bool = False,
    prompts: DeepVisual | None = None,
) -> torch.Tensor:
    """Features, not normalised; B x D. Gradients flow only where something is learned: LayerNorms, or `prompts`.

    Raises ValueError for integer pictures, which cannot have been normalised, and for pictures of another size.
    """
    if not images_BCHW.is_floating_point():
        raise ValueError(
            f"pictures are {images_BCHW.dtype}: scale them to 0..1 and normalise them as the backbone was trained"
        )
    height, width = backbone.preprocessing.size
    if images_BCHW.ndim != 4 or tuple(images_BCHW.shape[1:]) != (3, height, width):
        raise ValueError(f"pictures are {tuple(images_BCHW.shape)}: this backbone takes B x 3 x {height} x {width}")
    with torch.set_grad_enabled(torch.is_grad_enabled() and (learns or prompts is not None)):
        return backbone.encode_image(images_BCHW, prompts)
