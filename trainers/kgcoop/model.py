"""KgCoOp: knowledge-guided context optimisation (Yao, Zhang, Xu, CVPR 2023): CoOp whose text features stay near CLIP's own.

Shapes: B pictures, C classes, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ..coop.model import CoOpCLIP
from ..coop.options import CoOpModelOptions
from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.hard_features import hard_features
from ..core.clip.precision import cosine_logits, mean_angle
from ..core.clip.prompts import with_count_of
from .options import KgCoOpOptions


class KgCoOpCLIP(CoOpCLIP):
    """CoOpCLIP beside its teacher, the features w0_c of one hard template.

    template: with one `{}`; empty where nothing is to be trained.
    """

    teacher_CD: torch.Tensor

    def __init__(self, clip_model: Any, classnames: Sequence[str], template: str = "", **options: Any) -> None:
        super().__init__(clip_model, classnames, **options)
        if template:
            hard_TCD = hard_features(self.text_encoder, [template], classnames, self.vocabulary)
            self.register_buffer("teacher_CD", hard_TCD[0], persistent=False)

    def losses(self, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> dict[str, torch.Tensor]:
        """Unweighted scalars "cls", cross-entropy, and "text", 1 - mean_c cos(w_c, w0_c), and "logits_BC"."""
        text_CD = self.text_features()
        logits_BC = cosine_logits(self.image_features(images_BCHW), text_CD, self.logit_scale.exp())
        apart = mean_angle(text_CD, self.teacher_CD)
        return {"cls": F.cross_entropy(logits_BC, labels_B), "text": apart, "logits_BC": logits_BC}

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "KgCoOpCLIP":
        own = with_count_of(trained.tensors["ctx"], KgCoOpOptions.of(trained.options), backbone.vocabulary)
        return cls(backbone, classnames, **own.keywords(CoOpModelOptions))
