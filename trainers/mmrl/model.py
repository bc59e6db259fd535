"""MMRL: tokens in the later blocks of both towers, made from one shared space, and a head of their own (Guo, Gu, CVPR 2025,
arXiv 2503.08497).

Shapes: B pictures, C classes, M representation tokens, W width of a tower, D features, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.doors import Inserted, VisualPrompts
from ..core.clip.exportable import Exportable, ExportableLinear, ExportableTwoHeads
from ..core.clip.hard_features import hard_features
from ..core.clip.precision import cosine_logits, mean_angle
from ..core.clip.prompts import hard_plan
from ..core.clip.shared_context import ClassTextCLIP
from ..core.clip.visual_tower import encode_pictures
from .options import MmrlModelOptions, MmrlOptions


class MmrlCLIP(ClassTextCLIP):
    """CLIP with M tokens behind SOS and behind the class token, from `first_block` on, and a second head on those of the
    picture tower.

    template: the prompt, with one `{}`. dim: width of the shared tokens. both_heads: whether both answer in evaluation.
    options: those of MmrlModelOptions. Learned: tokens, M x dim, drawn with deviation 0.02; to_text.<i> and to_vision.<i>,
    linear maps for each block, which start alike; proj_rep, W x D, drawn with deviation W^-1/2. Raises ValueError for a
    block that a tower does not have.
    """

    teacher_CD: torch.Tensor

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        template: str,
        *,
        dim: int = 512,
        both_heads: bool = True,
        text_encoder: str = "fast",
        text_chunk: int = 0,
        text_memory: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(clip_model, False, text_encoder, text_chunk, text_memory)
        self.options, self.both_heads = self.make_options(options), both_heads
        b, o = self.backbone, self.options
        blocks = min(b.text_layers, b.visual_blocks)
        if o.first_block >= blocks:
            has = (
                f"both towers have {blocks}"
                if blocks
                else "the picture tower takes no tokens (a ResNet, or one of timm)"
            )
            raise ValueError(
                f"FIRST_BLOCK is {o.first_block}, but {has}: set TRAINER.*.FIRST_BLOCK lower, or use another"
            )
        self.plan = hard_plan([template], classnames, self.vocabulary)
        hard_TCD = hard_features(self.text_encoder, [template], classnames, self.vocabulary)
        self.register_buffer("teacher_CD", hard_TCD[0], persistent=False)
        self.make_tokens(dim)

    def make_options(self, options: dict[str, Any]) -> MmrlModelOptions:
        return MmrlModelOptions(**options)

    def make_tokens(self, dim: int) -> None:
        """What is learned."""
        b, o = self.backbone, self.options
        self.proj_rep = nn.Parameter(torch.randn(b.visual_width, b.features) * b.visual_width**-0.5)
        self.tokens = nn.Parameter(nn.init.normal_(torch.empty(o.n_tokens, dim), std=0.02))
        self.to_vision = _alike(nn.Linear(dim, b.visual_width), b.visual_blocks - o.first_block)
        self.to_text = _alike(nn.Linear(dim, b.text_width), b.text_layers - o.first_block)

    def visual_prompts(self) -> VisualPrompts:
        rows = {self.options.first_block + i: to(self.tokens) for i, to in enumerate(self.to_vision)}
        return VisualPrompts(rows, "after_ln_pre", "after_class", reads=True)

    def inserted_text(self) -> Inserted:
        return Inserted({self.options.first_block + i: to(self.tokens) for i, to in enumerate(self.to_text)})

    def representation_projection(self) -> torch.Tensor:
        """Of the mean of the representation tokens; W x D."""
        return self.proj_rep

    def text_features(self) -> torch.Tensor:
        """Normalised; C x D."""
        return F.normalize(self.text_encoder(self.plan, deep=self.inserted_text())[0], dim=-1)

    def both_features(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised features of the class token, and of the mean of the representation tokens; B x D each."""
        encoded: Any = self.encoded(images_BCHW)
        features_BD, rows_BMW = encoded
        rep_BD = rows_BMW.mean(1) @ self.representation_projection().to(rows_BMW.dtype)
        return F.normalize(features_BD, dim=-1), F.normalize(rep_BD, dim=-1)

    def image_features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.both_features(images_BCHW)[0]

    def logits_of(
        self, image_BD: torch.Tensor, rep_BD: torch.Tensor, text_CD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the two heads; B x C each."""
        scale = self.logit_scale.exp()
        return cosine_logits(image_BD, text_CD, scale), cosine_logits(rep_BD, text_CD, scale)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """alpha of the class token's logits and 1 - alpha of the tokens', or the class token's alone; B x C."""
        text_CD = self.cached_in_eval(self.text_features)
        first_BC, second_BC = self.logits_of(*self.both_features(images_BCHW), text_CD)
        alpha = self.options.alpha
        return alpha * first_BC + (1 - alpha) * second_BC if self.both_heads else first_BC

    def losses(self, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> dict[str, torch.Tensor]:
        """Unweighted scalars, and "logits_BC" of both heads. "class" and "rep": cross-entropy of each; "image" and "text":
        1 - the mean cosine to CLIP's own features."""
        text_CD, (image_BD, rep_BD) = self.text_features(), self.both_features(images_BCHW)
        first_BC, second_BC = self.logits_of(image_BD, rep_BD, text_CD)
        with torch.no_grad():
            teacher_BD = F.normalize(encode_pictures(self.backbone, images_BCHW), dim=-1)
        return {
            "class": F.cross_entropy(first_BC, labels_B),
            "rep": F.cross_entropy(second_BC, labels_B),
            "image": mean_angle(image_BD, teacher_BD),
            "text": mean_angle(text_CD, self.teacher_CD),
            "logits_BC": self.options.alpha * first_BC + (1 - self.options.alpha) * second_BC,
        }

    @torch.no_grad()
    def exportable(self) -> Exportable:
        class_CD = self.logit_scale.exp() * self.cached_in_eval(self.text_features)
        if self.both_heads:
            proj_WD = self.representation_projection()
            return ExportableTwoHeads(self.backbone, class_CD, proj_WD, self.options.alpha, self.visual_prompts())
        return ExportableLinear(self.backbone, class_CD, visual=replace(self.visual_prompts(), reads=False))

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "MmrlCLIP":
        o, identity = MmrlOptions.of(trained.options), trained.identity
        both = answers_with_both(o.heads, trained.classnames, classnames)
        own = o.keywords(MmrlModelOptions)
        return cls(backbone, classnames, identity["templates"][0], dim=identity["dim"], both_heads=both, **own)


def answers_with_both(heads: str, trained: Sequence[str], asked: Sequence[str]) -> bool:
    """Whether both heads answer: as is said, or, told, if the classes asked are those of training."""
    return heads == "both" or (heads == "told" and list(trained) == list(asked))


def _alike(linear: nn.Linear, count: int) -> nn.ModuleList:
    """`count` copies."""
    copies = [nn.Linear(linear.in_features, linear.out_features) for _ in range(count)]
    for copy in copies:
        copy.load_state_dict(linear.state_dict())
    return nn.ModuleList(copies)
