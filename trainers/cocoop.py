"""CoCoOp: conditional context optimisation (Zhou, Yang, Loy, Liu, CVPR 2022).

Each picture shifts the context: ctx + meta_net(f). One set of text features per picture, so nothing can be kept in
evaluation; the prefix SOS + context is shared by a picture's classes.

Shapes: B pictures, C classes, M context tokens, W width of the text transformer, D features, H x W pixels.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import nn
from torch.nn import functional as F
from yacs.config import CfgNode

from .base import PromptTrainer, declare
from .parts.model import AdaptedCLIP
from .parts.precision import einsum
from .parts.prompts import EOT, SOS, PromptPlan, encode, initial_context, learned, tokenize_prompt


class CoCoOpCLIP(AdaptedCLIP):
    """CLIP with a context that a small network shifts per picture.

    Learned: ctx (M x W), meta_net.linear1 (D -> D/16), meta_net.linear2 (D/16 -> W), with a ReLU between.
    """

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        n_ctx: int = 4,
        ctx_init: str = "a photo of a",
        text_encoder: str = "fast",
        text_chunk: int = 0,
    ) -> None:
        super().__init__(clip_model, False, text_encoder, text_chunk)
        self.ctx = nn.Parameter(initial_context(clip_model.token_embedding, n_ctx, ctx_init))
        D, W = clip_model.visual.output_dim, self.ctx.shape[-1]
        self.meta_net = nn.Sequential(
            OrderedDict(linear1=nn.Linear(D, D // 16), relu=nn.ReLU(inplace=True), linear2=nn.Linear(D // 16, W))
        )
        names = [tokenize_prompt("{}.", name, self.text_encoder.context_length) for name in classnames]
        self._tails = [n.name + n.stop + encode(EOT) for n in names]
        self._plan: PromptPlan | None = None

    def _plan_for(self, B: int) -> PromptPlan:
        if self._plan is None or self._plan.G != B:
            M, sos = len(self.ctx), encode(SOS)
            prefixes = [sos + [learned(b * M + i) for i in range(M)] for b in range(B)]
            self._plan = PromptPlan(prefixes, [self._tails] * B, self.text_encoder.context_length)
        return self._plan

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """exp(logit_scale) <f_b, w_bc>; B x C."""
        image_BD = self.image_features(images_BCHW)
        shift_BW = self.meta_net(image_BD.to(self.ctx.dtype))
        context_BMW = self.ctx + shift_BW[:, None]
        text_BCD = self.text_encoder(self._plan_for(len(image_BD)), context_BMW.flatten(0, 1))
        text_BCD = F.normalize(text_BCD, dim=-1)
        return self.logit_scale.exp() * einsum("bd,bcd->bc", image_BD, text_BCD)


@TRAINER_REGISTRY.register()
class CoCoOp(PromptTrainer):
    """Trains CoCoOpCLIP with cross-entropy."""

    KEY = "COCOOP"

    def build_model(self) -> None:
        cfg = self.settings
        self.model = CoCoOpCLIP(self.load_clip(), self.classnames, cfg.N_CTX, cfg.CTX_INIT, **self.encoder_options)
        self.finish_model()

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return F.cross_entropy(self.model(images), labels), {}


def add_config(cfg: CfgNode) -> None:
    """Declares CoCoOp's settings below cfg.TRAINER.COCOOP."""
    PromptTrainer.add_config(cfg)
    declare(cfg.TRAINER, COCOOP={"N_CTX": 16, "CTX_INIT": "", "PREC": "fp16"})  # tokens; words; fp16, fp32, amp, bf16
