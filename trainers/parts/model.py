"""A frozen CLIP with something learned on it: what the methods' models have in common.

Shapes: B pictures, H x W pixels, D features.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .backbone import visual_layer_norms
from .features import FeatureCache
from .text_encoder import TextEncoder


class AdaptedCLIP(nn.Module):
    """CLIP's two encoders, frozen but for the visual LayerNorms if asked; a subclass adds what it learns.

    clip_model is used in place. train_visual_ln: train ln_1 and ln_2 of a visual transformer (a ResNet has none).
    text_encoder: "fast" or "plain"; text_chunk: prompts encoded at a time, 0 by memory.
    """

    image_encoder: Any
    text_encoder: TextEncoder
    logit_scale: torch.Tensor

    def __init__(
        self, clip_model: Any, train_visual_ln: bool = False, text_encoder: str = "fast", text_chunk: int = 0
    ) -> None:
        super().__init__()
        clip_model.requires_grad_(False)
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model, text_encoder, text_chunk)
        self.logit_scale = clip_model.logit_scale
        self.tuned = list(visual_layer_norms(self.image_encoder).values()) if train_visual_ln else []
        for p in self.tuned:
            p.requires_grad_(True)
        self._cache = FeatureCache()

    def train(self, mode: bool = True) -> "AdaptedCLIP":
        """Frozen encoders stay in evaluation mode (a ResNet's batch statistics must not move)."""
        super().train(mode)
        self.image_encoder.eval()
        self.text_encoder.eval()
        self._cache.clear()
        return self

    def learned(self) -> dict[str, nn.Parameter]:
        """What is trained, by name; all that a checkpoint needs."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def image_features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """f = normalise(ImageEncoder(x)); B x D."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(self.tuned)):
            features_BD = self.image_encoder(images_BCHW.type(self.image_encoder.conv1.weight.dtype))
            return F.normalize(features_BD, dim=-1)

    def kept(self, compute: Callable[[], torch.Tensor], learned: Sequence[nn.Parameter]) -> torch.Tensor:
        """compute(), which depends on the text encoder and on `learned`; in evaluation mode only when those changed."""
        if self.training:
            return compute()
        with torch.no_grad():
            return self._cache.get(compute, self.text_encoder.parameters(), learned)
