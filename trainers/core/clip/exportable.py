"""Trained models with their text encoded once and for all, in operations that ONNX has.

Each gives logits (B x C), a mixture also the weights of its experts (B x G). Shapes: B pictures, C classes, G experts,
D features, L positions, M context tokens, W width of the text tower, H x W pixels.
"""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from .backbones import Backbone
from .doors import DeepVisual, VisualPrompts


class Exportable(nn.Module):
    """An image encoder with class features, or a fitted classifier, as buffers."""

    def __init__(self, backbone: Backbone, visual: DeepVisual | None = None, **tensors: torch.Tensor) -> None:
        super().__init__()
        self._backbone, self.model, self._visual = backbone, backbone.model, visual
        rows = {f"visual_{block}": rows for block, rows in (visual.rows if visual else {}).items()}
        for name, tensor in (tensors | rows).items():
            self.register_buffer(name, tensor.detach().float().clone())

    def add_head(self, weight_CD: torch.Tensor, bias_C: torch.Tensor) -> None:
        """Adds <f, V_c> + b_c to the logits; V: C x D, b: C."""
        self.register_buffer("class_head_CD", weight_CD.detach().float().clone())
        self.register_buffer("head_C", bias_C.detach().float().clone())

    def with_head(self, logits_BC: torch.Tensor, image_BD: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "class_head_CD"):
            return logits_BC
        return logits_BC + image_BD @ self.get_buffer("class_head_CD").T + self.get_buffer("head_C")

    def encode(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """ImageEncoder(x), with its prompts; B x D."""
        return self._backbone.encode_image(images_BCHW, self.prompts()).float()

    def prompts(self) -> DeepVisual | None:
        """The picture tower's, of buffers."""
        if self._visual is None:
            return None
        return replace(self._visual, rows={block: self.get_buffer(f"visual_{block}") for block in self._visual.rows})

    def image_features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """f = normalise(ImageEncoder(x)); B x D."""
        return F.normalize(self.encode(images_BCHW), dim=-1)

    def class_features(self) -> dict[str, torch.Tensor]:
        """What stands for the classes, by name."""
        return {name: tensor for name, tensor in self.named_buffers(recurse=False) if name.startswith("class_")}


class ExportableLinear(Exportable):
    """logits = features W^T + b. class_CD: W; bias_C: b; normalizes: whether features are of length one."""

    class_CD: torch.Tensor
    bias_C: torch.Tensor

    def __init__(
        self,
        backbone: Backbone,
        class_CD: torch.Tensor,
        bias_C: torch.Tensor | None = None,
        normalizes: bool = True,
        visual: DeepVisual | None = None,
    ) -> None:
        bias_C = class_CD.new_zeros(len(class_CD)) if bias_C is None else bias_C
        super().__init__(backbone, visual, class_CD=class_CD, bias_C=bias_C)
        self.normalizes = normalizes

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        features_BD = self.image_features(images_BCHW) if self.normalizes else self.encode(images_BCHW)
        return self.with_head(features_BD @ self.class_CD.T + self.bias_C, features_BD)


class ExportableTwoHeads(Exportable):
    """alpha of the class token's logits, and 1 - alpha of those of the mean of the prompts that the tower is read at.
    class_CD: class features times the logit scale; proj_WD: the prompts' projection."""

    class_CD: torch.Tensor
    proj_WD: torch.Tensor

    def __init__(
        self, backbone: Backbone, class_CD: torch.Tensor, proj_WD: torch.Tensor, alpha: float, visual: VisualPrompts
    ) -> None:
        super().__init__(backbone, visual, class_CD=class_CD, proj_WD=proj_WD)
        self.alpha = alpha

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        features_BD, rows_BMW = self._backbone.encode_image(images_BCHW, self.prompts())
        rep_BD = rows_BMW.float().mean(1) @ self.proj_WD
        mixed_BD = self.alpha * F.normalize(features_BD.float(), dim=-1) + (1 - self.alpha) * F.normalize(
            rep_BD, dim=-1
        )
        return mixed_BD @ self.class_CD.T


class ExportableMixture(Exportable):
    """A router's mixture of experts. class_GCD: their class features times the logit scale; top_k 0: all count alike.
    visual: what each expert changes in the picture tower, its rows G x ...; the router sees pictures without it."""

    class_GCD: torch.Tensor
    router_GD: torch.Tensor
    router_G: torch.Tensor

    def __init__(self, backbone: Backbone, class_GCD: torch.Tensor, router_GD: torch.Tensor, router_G: torch.Tensor,
                 top_k: int, visual: DeepVisual | None = None) -> None:  # fmt: skip
        super().__init__(backbone, visual, class_GCD=class_GCD, router_GD=router_GD, router_G=router_G)
        self.top_k = top_k

    def forward(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        image_BD = F.normalize(self._backbone.encode_image(images_BCHW).float(), dim=-1)
        router_BG = image_BD @ self.router_GD.T + self.router_G
        chosen_BK, experts_BK = router_BG.topk(self.top_k or router_BG.shape[1], dim=-1)
        share_BK = chosen_BK.softmax(dim=-1) if self.top_k else torch.full_like(chosen_BK, 1.0 / chosen_BK.shape[1])
        weights_BG = torch.zeros_like(router_BG).scatter(1, experts_BK, share_BK)
        visual = self.prompts()
        if visual is None:
            logits_GBC = image_BD @ self.class_GCD.transpose(-1, -2)
            return self.with_head((weights_BG.T[:, :, None] * logits_GBC).sum(0), image_BD), weights_BG
        each = []
        for k in range(experts_BK.shape[1]):
            own = replace(visual, rows={block: rows[experts_BK[:, k]] for block, rows in visual.rows.items()})
            own_BD = F.normalize(self._backbone.encode_image(images_BCHW, own).float(), dim=-1)
            by_expert_BGC = (own_BD @ self.class_GCD.transpose(-1, -2)).transpose(0, 1)
            share_BG = torch.zeros_like(router_BG).scatter(1, experts_BK[:, k : k + 1], share_BK[:, k : k + 1])
            each.append((share_BG[:, :, None] * by_expert_BGC).sum(1))
        return self.with_head(torch.stack(each).sum(0), image_BD), weights_BG


class ExportableJoint(Exportable):
    """One softmax over all groups and classes, summed over the groups. class_GCD: class features times the logit scale."""

    class_GCD: torch.Tensor

    def __init__(self, backbone: Backbone, class_GCD: torch.Tensor) -> None:
        super().__init__(backbone, class_GCD=class_GCD)

    def forward(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        image_BD = self.image_features(images_BCHW)
        logits_GBC = image_BD @ self.class_GCD.transpose(-1, -2)
        return logits_GBC.logsumexp(0), logits_GBC.logsumexp(-1).softmax(0).T


class ExportableCache(Exportable):
    """Zero-shot logits and the votes of a cache of pictures. class_CD: text features times the logit scale; class_ND: the
    cache's keys; votes_NC: what each key counts for which class."""

    class_CD: torch.Tensor
    class_ND: torch.Tensor
    votes_NC: torch.Tensor
    beta: torch.Tensor

    def __init__(self, backbone: Backbone, class_CD: torch.Tensor, class_ND: torch.Tensor, votes_NC: torch.Tensor,
                 beta: torch.Tensor) -> None:  # fmt: skip
        super().__init__(backbone, class_CD=class_CD, class_ND=class_ND, votes_NC=votes_NC, beta=beta)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        image_BD = self.image_features(images_BCHW)
        votes_BN = (self.beta * (image_BD @ self.class_ND.T) - self.beta).exp()
        return image_BD @ self.class_CD.T + votes_BN @ self.votes_NC


class ExportableAdapter(Exportable):
    """Text features against image features of which a part comes from an adapter. class_CD: text features times the
    logit scale."""

    class_CD: torch.Tensor

    def __init__(
        self, backbone: Backbone, class_CD: torch.Tensor, adapter: nn.Module, visual: VisualPrompts | None = None
    ) -> None:
        super().__init__(backbone, visual, class_CD=class_CD)
        self.adapter = adapter

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        image_BD = F.normalize(self.adapter(self.encode(images_BCHW)), dim=-1)
        return self.with_head(image_BD @ self.class_CD.T, image_BD)


class ExportableConditional(Exportable):
    """CoCoOp: the context of each picture's prompts is shifted by a function of the picture, so their text is encoded for
    each picture, here with the text tower's own modules.

    prompts_CLW: the prompts' embeddings with the context unshifted; context_L: 1 where the context stands.
    """

    prompts_CLW: torch.Tensor
    context_L: torch.Tensor

    def __init__(self, backbone: Backbone, prompts_CLW: torch.Tensor, context_L: torch.Tensor, length_C: torch.Tensor,
                 meta_net: nn.Module) -> None:  # fmt: skip
        super().__init__(backbone, prompts_CLW=prompts_CLW, context_L=context_L)
        self.register_buffer("length_C", length_C)
        self.meta_net = meta_net

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        image_BD = self.image_features(images_BCHW)
        shift_BLW = self.meta_net(image_BD)[:, None] * self.context_L[:, None]
        prompts_BCLW = self.prompts_CLW + shift_BLW[:, None]
        B, C = prompts_BCLW.shape[:2]
        prompts_NLW = prompts_BCLW.flatten(0, 1).to(self._backbone.text_dtype)
        text_ND = self._backbone.run_text(prompts_NLW, self.length_C.repeat(B)).float()  # type: ignore[operator]
        text_BCD = F.normalize(text_ND.view(B, C, -1), dim=-1)
        return self.with_head(self._backbone.logit_scale.exp() * (text_BCD * image_BD[:, None]).sum(-1), image_BD)
