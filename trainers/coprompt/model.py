"""CoPrompt: coupled prompts and an adapter behind each tower, held to CLIP's own features of sentences and of other views
(Roy, Etemad, ICLR 2024, arXiv 2306.01195).

Shapes: B pictures, C classes, K sentences on each class, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ..clip_adapter.model import Adapter
from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.exportable import ExportableAdapter
from ..core.clip.precision import cosine_logits, mean_angle
from ..core.clip.visual_tower import encode_pictures
from ..maple.model import MapleCLIP
from .options import CoPromptOptions

IMAGE, TEXT = 0.1, 0.2  # shares of the adapters
AT_A_TIME = 256  # sentences


class CoPromptCLIP(MapleCLIP):
    """MapleCLIP with f' = 0.1 A(f) + 0.9 f and w' = 0.2 A(w) + 0.8 w before features are normalised.

    sentences: K on each class, in label order; none where nothing is to be trained. Learned: MapleCLIP's tensors, and
    adapter_image.<down|up>.weight and adapter_text's, A(x) = relu(W_up relu(W_down x)).
    """

    teacher_KCD: torch.Tensor

    def __init__(
        self, clip_model: Any, classnames: Sequence[str], sentences: Sequence[Sequence[str]] = (), **options: Any
    ) -> None:
        super().__init__(clip_model, classnames, **options)
        self.adapter_image, self.adapter_text = (Adapter(self.backbone.features, 4, ratio) for ratio in (IMAGE, TEXT))
        if sentences:
            self.register_buffer("teacher_KCD", self.features_of(sentences), persistent=False)

    @torch.no_grad()
    def features_of(self, sentences: Sequence[Sequence[str]]) -> torch.Tensor:
        """Normalised features of sentences by CLIP itself; K x C x D."""
        flat = [sentence for own in sentences for sentence in own]
        parts = [self.backbone.encode_text(flat[i : i + AT_A_TIME]) for i in range(0, len(flat), AT_A_TIME)]
        return F.normalize(torch.cat(parts), dim=-1).unflatten(0, (len(sentences), -1)).transpose(0, 1).contiguous()

    def text_features(self) -> torch.Tensor:
        """Normalised; C x D."""
        text_CD = self.text_encoder.of_all(self.plan, self.ctx, self.deep_text())[0]
        return F.normalize(self.adapter_text(text_CD.to(self.adapter_text.up.weight.dtype)), dim=-1)

    def image_features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalised; B x D."""
        image_BD = self.encoded(images_BCHW)
        return F.normalize(self.adapter_image(image_BD.to(self.adapter_image.up.weight.dtype)), dim=-1)

    @torch.no_grad()
    def exportable(self) -> ExportableAdapter:
        class_CD = self.logit_scale.exp() * self.cached_in_eval(self.text_features)
        return ExportableAdapter(self.backbone, class_CD, self.adapter_image, self.visual_prompts())

    def losses(
        self, images_BCHW: torch.Tensor, labels_B: torch.Tensor, others_BCHW: torch.Tensor, sentence: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Unweighted scalars, and "logits_BC". "cls": cross-entropy; "text" and "image": 1 - the mean cosine to CLIP's
        features of one sentence on each class, and of the other views. sentence: its number, a scalar."""
        text_CD, image_BD = self.text_features(), self.image_features(images_BCHW)
        logits_BC = cosine_logits(image_BD, text_CD, self.logit_scale.exp())
        with torch.no_grad():
            teacher_BD = F.normalize(encode_pictures(self.backbone, others_BCHW), dim=-1)
            teacher_CD = self.teacher_KCD.index_select(0, sentence.view(1))[0]
        return {
            "cls": F.cross_entropy(logits_BC, labels_B),
            "text": mean_angle(text_CD, teacher_CD),
            "image": mean_angle(image_BD, teacher_BD),
            "logits_BC": logits_BC,
        }

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "CoPromptCLIP":
        o = CoPromptOptions.of(trained.options)
        return cls(backbone, classnames, **trained.identity["prompts"], ctx_init=o.ctx_init)
