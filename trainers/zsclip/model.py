"""Zero-shot CLIP (Radford et al., 2021): one hand-crafted template per dataset, or the mean of several; and a mixture of
template groups, of which nothing is learned.

Shapes: B pictures, C classes, T templates, G groups, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..core.clip.adapted import AdaptedCLIP, Trained
from ..core.clip.backbones import Backbone
from ..core.clip.exportable import Exportable, ExportableJoint, ExportableLinear, ExportableMixture
from ..core.clip.hard_features import check_groups, group_means, hard_features
from ..core.clip.precision import cosine_logits, einsum
from .options import HardMixtureOptions


class HardPromptCLIP(AdaptedCLIP):
    """CLIP with the mean text feature of the given templates; learns nothing."""

    from_features = True
    text_CD: torch.Tensor

    def __init__(
        self, clip_model: Any, classnames: Sequence[str], templates: Sequence[str], **encoder_options: Any
    ) -> None:
        super().__init__(clip_model, **encoder_options)
        hard_TCD = hard_features(self.text_encoder, templates, classnames, self.vocabulary)
        self.register_buffer("text_CD", group_means(hard_TCD, [templates])[0], persistent=False)

    @torch.no_grad()
    def exportable(self) -> Exportable:
        return ExportableLinear(self.backbone, self.logit_scale.exp() * self.text_CD)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "HardPromptCLIP":
        return cls(backbone, classnames, trained.identity["templates"])

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """exp(logit_scale) <f, w_c>; B x C."""
        image_BD = self.image_features(images_BCHW)
        return self.with_head(cosine_logits(image_BD, self.text_CD, self.logit_scale.exp()), image_BD)


class HardMixtureCLIP(AdaptedCLIP):
    """CLIP with a mean text feature p_gc per template group; learns nothing.

    read "joint": a softmax over all groups and classes, summed over the groups, so that for each picture the groups that
    fit it count most; "mean": all groups count alike.
    """

    from_features = True
    text_GCD: torch.Tensor

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        template_groups: Sequence[Sequence[str]],
        read: str = "joint",
        **encoder_options: Any,
    ) -> None:
        super().__init__(clip_model, **encoder_options)
        check_groups(template_groups)
        self.read = read
        flat = [template for group in template_groups for template in group]
        hard_TCD = hard_features(self.text_encoder, flat, classnames, self.vocabulary)
        self.register_buffer("text_GCD", group_means(hard_TCD, template_groups), persistent=False)

    @torch.no_grad()
    def exportable(self) -> ExportableJoint | ExportableMixture:
        class_GCD = self.logit_scale.exp() * self.text_GCD
        if self.read == "joint":
            return ExportableJoint(self.backbone, class_GCD)
        return ExportableMixture(self.backbone, class_GCD, class_GCD[:, 0], class_GCD[:, 0, 0], top_k=0)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "HardMixtureCLIP":
        return cls(
            backbone, classnames, trained.identity["template_groups"], HardMixtureOptions.of(trained.options).read
        )

    def predict(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, B x C: log sum_g exp(l_gbc) or mean_g l_gbc, with l_gbc = exp(logit_scale) <f_b, p_gc>; and the weight of
        each group, B x G: its share of the joint softmax, or the same for all."""
        image_BD = self.image_features(images_BCHW)
        logits_GBC = self.logit_scale.exp() * einsum("bd,gcd->gbc", image_BD, self.text_GCD)
        if self.read == "joint":
            return logits_GBC.logsumexp(0), logits_GBC.logsumexp(-1).softmax(0).T
        return logits_GBC.mean(0), torch.full(logits_GBC.shape[1::-1], 1 / len(logits_GBC), device=logits_GBC.device)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits, B x C."""
        return self.predict(images_BCHW)[0]
