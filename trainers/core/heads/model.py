"""CLIP with a fitted linear classifier on its image features.

Shapes: B pictures, C classes, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..clip.adapted import AdaptedCLIP, Trained
from ..clip.backbones import Backbone
from ..clip.exportable import ExportableLinear
from ..clip.precision import linear


class LinearHeadCLIP(AdaptedCLIP):
    """logits = features W^T + b; W: C x D, b: C. It knows the classes that it was fitted on, and no others."""

    from_features = True
    normalizes = True  # whether features are of length one
    called = "a linear head"
    weight_CD: torch.Tensor
    bias_C: torch.Tensor

    def __init__(self, clip_model: Any, weight_CD: torch.Tensor, bias_C: torch.Tensor) -> None:
        super().__init__(clip_model)
        self.register_buffer("weight_CD", weight_CD)
        self.register_buffer("bias_C", bias_C)

    def checkpoint_tensors(self) -> dict[str, torch.Tensor]:
        return {"weight_CD": self.weight_CD, "bias_C": self.bias_C}

    def exportable(self) -> ExportableLinear:
        return ExportableLinear(self.backbone, self.weight_CD, self.bias_C, normalizes=self.normalizes)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "LinearHeadCLIP":
        if list(classnames) != list(trained.classnames):
            raise ValueError(f"{cls.called} knows only the classes it was fitted on, and these are others")
        return cls(backbone, trained.tensors["weight_CD"].clone(), trained.tensors["bias_C"].clone())

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits, B x C."""
        features_BD = self.image_features(images_BCHW) if self.normalizes else self.encoded(images_BCHW)
        return linear(features_BD, self.weight_CD, self.bias_C)
