"""Linear probe: logistic regression on frozen image features (Radford et al., 2021, appendix A.3).

Shapes: N pictures of a set, B pictures, C classes, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..core.clip.adapted import AdaptedCLIP, Trained
from ..core.clip.backbones import Backbone
from ..core.clip.exportable import ExportableLinear


class ProbedCLIP(AdaptedCLIP):
    """CLIP's image encoder with a linear classifier (C x D and C) on its features, which are not normalised."""

    from_features = True
    weight_CD: torch.Tensor
    bias_C: torch.Tensor

    def __init__(self, clip_model: Any, weight_CD: torch.Tensor, bias_C: torch.Tensor) -> None:
        super().__init__(clip_model)
        self.register_buffer("weight_CD", weight_CD)
        self.register_buffer("bias_C", bias_C)

    def checkpoint_tensors(self) -> dict[str, torch.Tensor]:
        return {"weight_CD": self.weight_CD, "bias_C": self.bias_C}

    def exportable(self) -> ExportableLinear:
        return ExportableLinear(self.backbone, self.weight_CD, self.bias_C, normalizes=False)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "ProbedCLIP":
        if list(classnames) != list(trained.classnames):
            raise ValueError("a linear probe knows only the classes it was fitted on, and these are others")
        return cls(backbone, trained.tensors["weight_CD"].clone(), trained.tensors["bias_C"].clone())

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.encoded(images_BCHW).float() @ self.weight_CD.T + self.bias_C
