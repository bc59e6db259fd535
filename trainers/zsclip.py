"""Zero-shot CLIP (Radford et al., 2021): one hand-crafted template per dataset, or the mean of several.

Shapes: B pictures, C classes, T templates, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from .components.features import group_means, hard_features
from .components.model import AdaptedCLIP
from .components.precision import cosine_logits
from .core.settings import add_shared
from .core.templates import from_template_file
from .core.trainer import PromptTrainer


class HardPromptCLIP(AdaptedCLIP):
    """CLIP with the mean text feature of the given templates; learns nothing."""

    text_CD: torch.Tensor

    def __init__(
        self, clip_model: Any, classnames: Sequence[str], templates: Sequence[str], **encoder_options: Any
    ) -> None:
        super().__init__(clip_model, **encoder_options)
        hard_TCD = hard_features(self.text_encoder, templates, classnames, self.vocabulary)
        self.register_buffer("text_CD", group_means(hard_TCD, [templates])[0], persistent=False)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """exp(logit_scale) <f, w_c>; B x C."""
        return cosine_logits(self.image_features(images_BCHW), self.text_CD, self.logit_scale.exp())


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(PromptTrainer):
    """One template per dataset (configs/templates/zeroshot.yaml); works on base and new classes too."""

    takes_steps = False
    USES = ("test",)

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list[str]:
        return [from_template_file("zeroshot.yaml", cfg.DATASET.NAME)]

    def build_model(self) -> None:
        templates = self.templates_of(self.cfg)
        print(f"Prompts: {templates}")
        model = HardPromptCLIP(self.load_clip(), self.classnames, templates, **self.encoder_options)
        self.model = model.to(self.device)
        self.register_model("zero_shot", self.model)


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """Seven templates selected on ImageNet, and the dataset's own."""

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list[str]:
        own = super().templates_of(cfg)
        return from_template_file("zeroshot.yaml", "selected") + ([] if cfg.DATASET.NAME == "ImageNet" else own)


add_config = add_shared
