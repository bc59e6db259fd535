"""PromptSRC: independent prompts in both towers, held near CLIP's own features and predictions (Khattak et al., ICCV 2023).

Shapes: B pictures, C classes, T templates, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.hard_features import hard_features
from ..core.clip.losses import divergence
from ..core.clip.precision import cosine_logits, mean_distance
from ..core.clip.visual_tower import encode_pictures
from ..ivlp.model import IvlpCLIP
from ..ivlp.options import DeepOptions
from .options import PromptSrcOptions


class PromptSrcCLIP(IvlpCLIP):
    """IvlpCLIP beside its teachers: CLIP without prompts, its text features averaged over templates as they are, and then
    normalised.

    templates: T of them, with one `{}` each; none where nothing is to be trained.
    """

    teacher_CD: torch.Tensor

    def __init__(
        self, clip_model: Any, classnames: Sequence[str], templates: Sequence[str] = (), **options: Any
    ) -> None:
        super().__init__(clip_model, classnames, **options)
        if templates:
            hard_TCD = hard_features(self.text_encoder, templates, classnames, self.vocabulary, unit=False)
            mean_CD = hard_TCD.to(torch.promote_types(hard_TCD.dtype, torch.float32)).mean(0)
            self.register_buffer("teacher_CD", F.normalize(mean_CD, dim=-1), persistent=False)

    def losses(self, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> dict[str, torch.Tensor]:
        """Unweighted scalars, and "logits_BC". "cls": cross-entropy; "text" and "image": mean over all elements of
        |w - w0| and |f - f0|; "logits": sum_bc p0 (log p0 - log p) / (B C), as the authors' code divides it.
        """
        text_CD, image_BD = self.text_features(), self.image_features(images_BCHW)
        scale = self.logit_scale.exp()
        logits_BC = cosine_logits(image_BD, text_CD, scale)
        with torch.no_grad():
            teacher_BD = F.normalize(encode_pictures(self.backbone, images_BCHW), dim=-1)
            teacher_BC = cosine_logits(teacher_BD, self.teacher_CD, scale)
        return {
            "cls": F.cross_entropy(logits_BC, labels_B),
            "text": mean_distance(text_CD, self.teacher_CD),
            "image": mean_distance(image_BD, teacher_BD),
            "logits": divergence(teacher_BC, logits_BC),
            "logits_BC": logits_BC,
        }

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "PromptSrcCLIP":
        return cls(backbone, classnames, **PromptSrcOptions.of(trained.options).keywords(DeepOptions))
