"""2SFS: LayerNorms of both towers first, then a classifier that starts from the text (Farina et al., CVPR 2025,
arXiv 2503.11609).

Shapes: B pictures, C classes, S classes seen in training, D features, H x W pixels.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.precision import cosine_logits
from ..core.clip.prompts import hard_plan, numbered
from ..core.clip.shared_context import ClassTextCLIP
from ..core.clip.staged import StagedCLIP


class TwoStageCLIP(StagedCLIP, ClassTextCLIP):
    """CLIP whose blocks' LayerNorms are trained, by the text of hard prompts; then a classifier takes the text's place.

    clip_model: a backbone or a CLIP of OpenAI's `clip`, used in place. classnames: those asked, seen: those of training, in
    label order. template: with one `{}`. Learned: ln_1 and ln_2 of every block of both towers, in the first stage, and
    classifier (S x D), in the second, which begin_second_stage() starts. A class that was seen is known by its row, another
    by its text. Raises ValueError for a tower without such LayerNorms.
    """

    row_C: torch.Tensor

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        template: str,
        seen: Sequence[str] | None = None,
        *,
        text_encoder: str = "fast",
        text_chunk: int = 0,
        text_memory: int = 0,
    ) -> None:
        super().__init__(clip_model, True, text_encoder, text_chunk, text_memory)
        of_text = [
            p for name, p in self.backbone.model.named_parameters()
            if re.search(r"resblocks\.\d+\.ln_[12]\.", name) and not name.startswith("visual.")
        ]  # fmt: skip
        if not of_text or not self.tuned:
            raise ValueError(
                "2SFS trains LayerNorms of both towers, and this backbone has none in one of them (a ResNet, timm, "
                "transformers): use another backbone"
            )
        for p in of_text:
            p.requires_grad_(True)
        names = numbered(seen or classnames)
        rows = [names.index(name) if name in names else -1 for name in numbered(classnames)]
        self.plan = hard_plan([template], classnames, self.vocabulary)
        self.classifier = nn.Parameter(torch.zeros(len(names), self.backbone.features))
        self.register_buffer("row_C", torch.tensor(rows), persistent=False)
        self.all_seen = min(rows) >= 0
        self.put_stage()

    @torch.no_grad()
    def begin_second_stage(self) -> None:
        """The classifier starts from the adapted text features of the classes that are trained on."""
        self.classifier.copy_(self.of_text())
        super().begin_second_stage()

    def of_text(self) -> torch.Tensor:
        """Normalised text features; C x D."""
        return F.normalize(self.text_encoder.of_all(self.plan, None)[0], dim=-1)

    def text_features(self) -> torch.Tensor:
        """What stands for the classes: rows of the classifier, and text features of those without one; C x D."""
        if not self.in_second_stage:
            return self.of_text()
        rows_CD = F.normalize(self.classifier, dim=-1)[self.row_C]
        if self.all_seen:
            return rows_CD
        text_CD = self.of_text().to(rows_CD.dtype)
        return torch.where((self.row_C >= 0)[:, None], rows_CD, text_CD)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """exp(logit_scale) <f, w_c>; B x C. In the second stage the towers are frozen."""
        text_CD = self.cached_in_eval(self.text_features)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.in_second_stage):
            image_BD = self.image_features(images_BCHW)
        return cosine_logits(image_BD, text_CD, self.logit_scale.exp())

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "TwoStageCLIP":
        return cls(backbone, classnames, trained.identity["templates"][0], trained.classnames)
