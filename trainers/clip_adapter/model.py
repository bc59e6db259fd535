"""CLIP-Adapter: a bottleneck behind the picture tower (Gao et al., IJCV 2024, arXiv 2110.04544).

Shapes: B pictures, C classes, D features, M = D / reduction, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.exportable import ExportableAdapter
from ..zsclip.model import HardPromptCLIP
from .options import AdapterOptions, ClipAdapterOptions


class AdapterCLIP(HardPromptCLIP):
    """f = normalise(ratio A(x) + (1 - ratio) x) of the picture encoder's x, equation 6; the text is that of hard templates.

    Learned: adapter.down, M x D, and adapter.up, D x M; see Adapter. options: those of AdapterOptions.
    """

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        templates: Sequence[str],
        *,
        text_encoder: str = "fast",
        text_chunk: int = 0,
        text_memory: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(
            clip_model, classnames, templates, text_encoder=text_encoder, text_chunk=text_chunk, text_memory=text_memory
        )
        own = AdapterOptions(**options)
        self.adapter = Adapter(self.text_CD.shape[1], own.reduction, own.ratio)

    def image_features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalised; B x D."""
        return F.normalize(self.adapter(self.encoded(images_BCHW).to(self.adapter.up.weight.dtype)), dim=-1)

    def exportable(self) -> ExportableAdapter:
        return ExportableAdapter(self.backbone, self.logit_scale.exp() * self.text_CD, self.adapter)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "AdapterCLIP":
        own = ClipAdapterOptions.of(trained.options).keywords(AdapterOptions)
        return cls(backbone, classnames, trained.identity["templates"], **own)


class Adapter(nn.Module):
    """ratio relu(up relu(down x)) + (1 - ratio) x, without biases; B x D -> B x D."""

    def __init__(self, width: int, reduction: int, ratio: float) -> None:
        super().__init__()
        if reduction > width:
            raise ValueError(f"REDUCTION is {reduction}, but features have {width} numbers: use less")
        self.ratio = ratio
        self.down = nn.Linear(width, width // reduction, bias=False)
        self.up = nn.Linear(width // reduction, width, bias=False)

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        return self.ratio * self.up(self.down(x_BD).relu()).relu() + (1 - self.ratio) * x_BD
