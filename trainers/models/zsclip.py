"""Zero-shot CLIP (Radford et al., 2021): one hand-crafted template per dataset, or the mean of several.

Shapes: B pictures, C classes, T templates, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..components.backbones import Backbone
from ..components.features import group_means, hard_features
from ..components.frozen import FrozenLinear
from ..components.model import AdaptedCLIP, Trained
from ..components.precision import cosine_logits


class HardPromptCLIP(AdaptedCLIP):
    """CLIP with the mean text feature of the given templates; learns nothing."""

    from_features = True
    text_CD: torch.Tensor

    def __init__(
        self, clip_model: Any, classnames: Sequence[str], templates: Sequence[str], **encoder_options: Any
    ) -> None:
        super().__init__(clip_model, **encoder_options)
        hard_TCD = hard_features(self.text_encoder, templates, classnames, self.vocabulary)
        self.register_buffer("text_CD", group_means(hard_TCD, [templates])[0], persistent=False)

    @torch.no_grad()
    def frozen(self) -> FrozenLinear:
        return FrozenLinear(self.backbone, self.logit_scale.exp() * self.text_CD)

    @classmethod
    def of(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "HardPromptCLIP":
        return cls(backbone, classnames, trained.identity["templates"])

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """exp(logit_scale) <f, w_c>; B x C."""
        return cosine_logits(self.image_features(images_BCHW), self.text_CD, self.logit_scale.exp())
