"""CLIP-SVD: the singular values of both towers' matrices are trained, and nothing else (Koleilat, Rivaz, Xiao, 2025,
arXiv 2509.03740).

Shapes: B pictures, C classes, K matrices in one tensor (the queries', keys' and values'), O x I of a matrix, R = min(O, I)
singular values, D features.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ..clip_lora.model import attentions
from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.prompts import hard_plan
from ..core.clip.shared_context import ClassTextCLIP


class SingularValues(nn.Module):
    """W = U diag(s) V^T, of K matrices in one tensor, KO x I. values: s, K x R, learned; U and V are fixed."""

    u_KOR: torch.Tensor
    v_KRI: torch.Tensor

    def __init__(self, weight: torch.Tensor, count: int) -> None:
        super().__init__()
        # on the CPU and in float64, so that a checkpoint's values meet the same vectors everywhere
        parts_KOI = weight.detach().double().cpu().unflatten(0, (count, -1))
        u_KOR, s_KR, v_KRI = torch.linalg.svd(parts_KOI, full_matrices=False)
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self.values = nn.Parameter(s_KR.to(weight.device, dtype))
        self.register_buffer("u_KOR", u_KOR.to(weight.device, dtype), persistent=False)
        self.register_buffer("v_KRI", v_KRI.to(weight.device, dtype), persistent=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            found_KOI = (self.u_KOR * self.values[:, None]) @ self.v_KRI
        return found_KOI.flatten(0, 1).to(weight.dtype)


class SvdCLIP(ClassTextCLIP):
    """CLIP whose blocks' matrices have trained singular values: queries, keys, values, output, and both of the MLP.

    clip_model: a backbone or a CLIP of OpenAI's `clip`; its modules are changed in place. template: with one `{}`.
    Learned: <matrix>.values, K x R, as they are at first. Raises ValueError for a tower without torch's own attention.
    """

    def __init__(self, clip_model: Any, classnames: Sequence[str], template: str, **encoder_options: Any) -> None:
        super().__init__(clip_model, **encoder_options)
        for tower in ("text", "vision"):
            for module, name, count in matrices(self.backbone, tower):
                if not parametrize.is_parametrized(module, name):
                    parametrize.register_parametrization(module, name, SingularValues(getattr(module, name), count))
        for name, p in self.named_parameters():  # which another model for this backbone may have, and has frozen
            p.requires_grad_(name.endswith(".0.values"))
        self.tuned = [p for name, p in self.trainable().items() if name.startswith("image_encoder.")]
        self.plan = hard_plan([template], classnames, self.vocabulary)

    def text_features(self) -> torch.Tensor:
        """Normalised; C x D."""
        return F.normalize(self.text_encoder.of_all(self.plan, None)[0], dim=-1)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "SvdCLIP":
        return cls(backbone, classnames, trained.identity["templates"][0])


def matrices(backbone: Backbone, tower: str) -> Iterator[tuple[nn.Module, str, int]]:
    """The matrices of the "text" or "vision" tower's blocks: whose, called what, how many in one tensor."""
    own = attentions(backbone, tower)
    blocks = [m for m in backbone.model.modules() if any(child is one for child in m.children() for one in own)]
    for attention, block in zip(own, blocks, strict=True):
        yield attention, "in_proj_weight", 3
        yield attention.out_proj, "weight", 1
        for layer in block.mlp.modules():  # type: ignore[operator, union-attr]
            if isinstance(layer, nn.Linear):
                yield layer, "weight", 1
