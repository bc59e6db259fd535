"""CLIP-LoRA: low-rank additions to the attention of both towers (Zanella, Ben Ayed, CVPR Workshops 2024, arXiv 2405.18541).

Shapes: B pictures, C classes, W width of a tower, R rank, D features, H x W pixels.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.prompts import hard_plan
from ..core.clip.shared_context import ClassTextCLIP
from .lora import LoraAttention
from .options import ClipLoraOptions, LoraOptions


class LoraCLIP(ClassTextCLIP):
    """CLIP whose queries, keys and values have low-rank additions; the prompts are hard.

    clip_model: a backbone or a CLIP of OpenAI's `clip`; its attention modules are changed in place. template: with one
    `{}`. options: those of LoraOptions. Learned: lora_A_<m> (R x W) and lora_B_<m> (W x R) of each attention, text tower
    first. Raises ValueError for a tower whose attention is not torch's own.

    Every prompt is encoded whole: masks of dropout belong to positions, so no two prompts share any. Several ranks draw
    other masks than one process.
    """

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        template: str,
        *,
        text_encoder: str = "fast",
        text_chunk: int = 0,
        text_memory: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(clip_model, False, text_encoder, text_chunk, text_memory)
        self.options = o = LoraOptions(**options)
        self.adapted = []
        for tower in ("text", "vision"):
            if o.towers in ("both", tower):
                other = "text" if tower == "vision" else "vision"
                own = attentions(self.backbone, tower, f"set TRAINER.CLIPLORA.TOWERS {other}, or ")
                for attention in own:
                    LoraAttention.put_into(attention, o.rank, o.alpha, o.dropout, o.matrices)
                self.adapted += own
                if tower == "vision":  # gradients flow through the picture tower, whose features are not CLIP's
                    self.tuned = [p for attention in own for p in attention.parameters() if p.requires_grad]
        self.text_encoder.draws = o.dropout > 0 and o.towers != "vision"
        self.plan = hard_plan([template], classnames, self.vocabulary)

    def train(self, mode: bool = True) -> "LoraCLIP":
        super().train(mode)
        for attention in self.adapted:
            attention.training = mode
        return self

    @property
    def from_features(self) -> bool:  # type: ignore[override]
        """Whether the picture tower is as CLIP has it."""
        return not self.tuned

    def text_features(self) -> torch.Tensor:
        """Normalised; C x D."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.options.towers != "vision"):
            return F.normalize(self.text_encoder(self.plan)[0], dim=-1)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "LoraCLIP":
        own = ClipLoraOptions.of(trained.options).keywords(LoraOptions)
        return cls(backbone, classnames, trained.identity["templates"][0], **own)


def attentions(backbone: Backbone, tower: str, otherwise: str = "") -> list[nn.MultiheadAttention]:
    """The attention of each block of the "text" or "vision" tower. Raises ValueError where it has none of torch's own, with
    what to do otherwise."""
    found = [
        module
        for name, module in backbone.model.named_modules()
        if re.search(r"resblocks\.\d+\.attn$", name) and name.startswith("visual.") == (tower == "vision")
    ]
    if not found or not all(isinstance(module, nn.MultiheadAttention) for module in found):
        raise ValueError(
            f"the {tower} tower of this backbone has no attention of torch's own (a ResNet, timm, transformers): "
            f"{otherwise}use another backbone"
        )
    return found
