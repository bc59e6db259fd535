"""TCP: textual-based class-aware prompt tuning (Yao, Zhang, Xu, CVPR 2024, arXiv 2311.18231).

Shapes: B pictures, C classes, M context tokens, W width of the text tower, D features, H x W pixels.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.hard_features import hard_features
from ..core.clip.prompts import Context, context_plan, slot, tokenize_prompt
from ..core.clip.shared_context import ClassTextCLIP
from ..kgcoop.model import KgCoOpCLIP
from .options import TcpModelOptions, TcpOptions


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), as in CLIP."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class TcpCLIP(ClassTextCLIP):
    """CLIP with M context tokens, whose place class tokens T_c = meta_net(w0_c) take at one block of the text tower.

    template: the prompt, whose first M tokens are learned; teacher: the hard template of w0. Both have one `{}`. options:
    those of TcpModelOptions. Learned: ctx, M x W, drawn with deviation 0.02, and meta_net.linear1, meta_net.linear2.
    Raises ValueError for a block that the tower does not have, and a template with fewer words before the name than M.
    """

    from_features = True
    teacher_CD: torch.Tensor

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        template: str,
        teacher: str,
        *,
        text_encoder: str = "fast",
        text_chunk: int = 0,
        text_memory: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(clip_model, False, text_encoder, text_chunk, text_memory)
        self.options = o = TcpModelOptions(**options)
        b = self.backbone
        if o.block >= b.text_layers:
            raise ValueError(
                f"BLOCK is {o.block}, but this text tower has blocks 0 to {b.text_layers - 1}: use one of 1 on"
            )
        prompts = [tokenize_prompt(template, name, self.vocabulary) for name in classnames]
        before = prompts[0].before
        if len(before) < o.n_ctx:
            raise ValueError(
                f'N_CTX is {o.n_ctx}, but "{template}" has {len(before)} tokens before the name: use that or less'
            )
        context = Context([slot(i) for i in range(o.n_ctx)], rest=before[o.n_ctx :])
        self.plan = context_plan([context], [[replace(prompt, before=[]) for prompt in prompts]], self.vocabulary)
        self.ctx = nn.Parameter(nn.init.normal_(torch.empty(o.n_ctx, b.text_width), std=0.02))
        hard_TCD = hard_features(self.text_encoder, [teacher], classnames, self.vocabulary)
        self.register_buffer("teacher_CD", hard_TCD[0], persistent=False)
        D, middle = hard_TCD.shape[-1], hard_TCD.shape[-1] // o.reduction
        layers = {
            "linear1": nn.Linear(D, middle),
            "gelu": QuickGELU(),
            "linear2": nn.Linear(middle, o.n_ctx * b.text_width),
        }
        self.meta_net = nn.Sequential(OrderedDict(layers))

    def text_features(self) -> torch.Tensor:
        """Normalised; C x D."""
        token_CMW = self.meta_net(self.teacher_CD.to(self.ctx.dtype)).unflatten(1, (self.options.n_ctx, -1))
        features_GCD = self.text_encoder.of_all(self.plan, self.ctx, {self.options.block: token_CMW})
        return F.normalize(features_GCD[0], dim=-1)

    losses = KgCoOpCLIP.losses  # cross-entropy, and 1 - mean_c cos(w_c, w0_c)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "TcpCLIP":
        own = TcpOptions.of(trained.options).keywords(TcpModelOptions)
        return cls(backbone, classnames, *trained.identity["templates"], **own)
