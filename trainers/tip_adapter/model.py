"""Tip-Adapter: zero-shot CLIP beside a cache of the training pictures (Zhang et al., ECCV 2022, arXiv 2207.09519).

Shapes: B pictures, N training pictures, C classes, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.exportable import ExportableCache
from ..core.clip.precision import cosine_logits
from ..zsclip.model import HardPromptCLIP


class TipCLIP(HardPromptCLIP):
    """logits = scale <f, w_c> + alpha sum over the training pictures n of class c of exp(-beta (1 - <f, k_n>)).

    keys_ND: k, normalised features of the training pictures; labels_N: their classes.
    """

    trains = False  # whether the keys are learned
    keys_ND: torch.Tensor
    labels_N: torch.Tensor
    alpha: torch.Tensor
    beta: torch.Tensor

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        templates: Sequence[str],
        keys_ND: torch.Tensor,
        labels_N: torch.Tensor,
        **encoder_options: Any,
    ) -> None:
        super().__init__(clip_model, classnames, templates, **encoder_options)
        self.keys_ND = nn.Parameter(keys_ND, requires_grad=self.trains)
        self.register_buffer("labels_N", labels_N)
        self.register_buffer("alpha", keys_ND.new_tensor(1.0))
        self.register_buffer("beta", keys_ND.new_tensor(1.0))

    def checkpoint_tensors(self) -> dict[str, torch.Tensor]:
        return {"keys_ND": self.keys_ND, "labels_N": self.labels_N, "alpha": self.alpha, "beta": self.beta}

    def exportable(self) -> ExportableCache:
        class_CD, values_NC = self.logit_scale.exp() * self.text_CD, one_hot(self.labels_N, len(self.text_CD))
        return ExportableCache(self.backbone, class_CD, self.keys_ND, self.alpha * values_NC, self.beta)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "TipCLIP":
        if list(classnames) != list(trained.classnames):
            raise ValueError("a cache of training pictures knows only their classes, and these are others")
        tensors, many = trained.tensors, len(trained.classnames)
        labels_N = tensors["labels_N"]
        if labels_N.is_floating_point() or not bool(((labels_N >= 0) & (labels_N < many)).all()):
            raise ValueError("the labels of its training pictures are no classes of its")
        return cls(backbone, classnames, trained.identity["templates"], tensors["keys_ND"].clone(), labels_N.clone())

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits, B x C."""
        image_BD = self.image_features(images_BCHW)
        zero_shot_BC = cosine_logits(image_BD, self.text_CD, self.logit_scale.exp())
        affinity_BN = cosine_logits(image_BD, self.keys_ND, self.beta)
        return zero_shot_BC + self.alpha * votes(affinity_BN - self.beta, self.labels_N, zero_shot_BC.shape[1])


def votes(exponent_BN: torch.Tensor, labels_N: torch.Tensor, classes: int) -> torch.Tensor:
    """sum over n of class c of exp(exponent_bn); B x C."""
    return exponent_BN.exp() @ one_hot(labels_N, classes).to(exponent_BN.dtype)


def one_hot(labels_N: torch.Tensor, classes: int) -> torch.Tensor:
    """N x C; without asking a GPU for the labels' range."""
    return (labels_N[:, None] == torch.arange(classes, device=labels_N.device)).float()
