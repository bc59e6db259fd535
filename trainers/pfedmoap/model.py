"""pFedMoAP's model (Luo, Chen, Wu, "Mixture of Experts Made Personalized: Federated Prompt Learning for Vision-Language
Models", ICLR 2025).

A client's own prompt is its local expert. The prompts that it downloads of others are non-local ones and stay fixed. For
each picture and class, attention over the experts' text features makes a new text feature.

Shapes: B pictures, C classes, E experts (the local one first), M context tokens, W width of the text transformer,
D features, P of these that the gate sees, H heads of P / H numbers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..coop.model import CoOpCLIP
from ..coop.options import CoOpModelOptions
from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.precision import cosine_logits, einsum
from .options import GateOptions, PFedMoAPOptions


class Gate(nn.Module):
    """Attention whose scores are scale times q k, where most take 1 / sqrt of their width."""

    def __init__(self, width: int, heads: int, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, image_BP: torch.Tensor, text_CEP: torch.Tensor) -> torch.Tensor:
        """A text feature of each class for each picture; C x B x P."""
        q_HBK = self.q(image_BP).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        k_CHEK, v_CHEK = (of(text_CEP).unflatten(-1, (self.heads, -1)).transpose(1, 2) for of in (self.k, self.v))
        share_CHBE = (q_HBK @ k_CHEK.transpose(-2, -1) * self.scale).softmax(-1)
        return self.o((share_CHBE @ v_CHEK).transpose(1, 2).flatten(-2))


class ExpertsCLIP(CoOpCLIP):
    """CoOp's model with a gate over its own prompt and those of others.

    options: those of GateOptions and of CoOpModelOptions. Learned: ctx (M x W) and the gate. Without others' prompts the
    logits are CoOp's. Raises ValueError for a width that does not fit the features or the heads.
    """

    others_CEP: torch.Tensor | None = None  # text features of the non-local experts

    def __init__(self, clip_model: Any, classnames: Sequence[str], **options: Any) -> None:
        own = {name: options.pop(name) for name in list(options) if name in GateOptions.__dataclass_fields__}
        super().__init__(clip_model, classnames, **options)
        self.gating = o = GateOptions(**own)
        D = self.backbone.features
        if D % o.gate_width or o.gate_width % o.gate_heads:
            raise ValueError(
                f"GATE_WIDTH is {o.gate_width} with {o.gate_heads} GATE_HEADS: use a divisor of the {D} features that the "
                "heads divide"
            )
        self.every = D // o.gate_width
        self.gate = Gate(o.gate_width, o.gate_heads, o.gate_scale)

    def pooled(self, features: torch.Tensor) -> torch.Tensor:
        """Every (D / P)-th number of features; not normalised again."""
        return features[..., :: self.every]

    @torch.no_grad()
    def set_experts(self, others_KMW: torch.Tensor | None) -> None:
        """Takes the contexts of K other clients, which stay as they are; None for none."""
        self.others_CEP = None
        if others_KMW is None or not len(others_KMW):
            return
        own = self.ctx.detach().clone()
        found = []
        for ctx in others_KMW:
            self.ctx.copy_(ctx)
            found.append(self.pooled(self.text_features()))
        self.ctx.copy_(own)
        self.others_CEP = torch.stack(found, dim=1)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """lambda s <f, w_c> + s <pool(f), gate(pool(f), experts_c)>; B x C."""
        text_CD, image_BD = self.cached_in_eval(self.text_features), self.image_features(images_BCHW)
        scale = self.logit_scale.exp()
        local_BC = cosine_logits(image_BD, text_CD, scale)
        if self.others_CEP is None:
            return local_BC
        dtype = self.gate.q.weight.dtype  # that of what is trained, whatever the towers compute in
        image_BP, text_CP = self.pooled(image_BD).to(dtype), self.pooled(text_CD).to(dtype)
        mixed_CBP = self.gate(image_BP, torch.cat([text_CP[:, None], self.others_CEP.to(dtype)], 1))
        return self.gating.local_weight * local_BC + scale * einsum("bp,cbp->bc", image_BP, mixed_CBP)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "ExpertsCLIP":
        """The server's: the mean of all contexts, and no experts."""
        own = PFedMoAPOptions.of(trained.options)
        return cls(backbone, classnames, **own.keywords(GateOptions), **own.keywords(CoOpModelOptions))
