"""CoCoOp: conditional context optimisation (Zhou, Yang, Loy, Liu, CVPR 2022).

Each picture shifts the context: ctx + meta_net(f). One set of text features per picture, so nothing can be kept in
evaluation; the prefix SOS + context is shared by a picture's classes.

Shapes: B pictures, C classes, M context tokens, W width of the text transformer, D features, H x W pixels.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import nn
from torch.nn import functional as F

from .components.losses import accuracy
from .components.model import AdaptedCLIP
from .components.precision import einsum
from .components.prompts import (
    Context,
    PromptPlan,
    context_plan,
    described,
    initial_context,
    slot,
    tokenize_names,
    with_count_of,
)
from .core.settings import PRECISIONS, Options, option
from .core.trainer import PromptTrainer


@dataclass(frozen=True)
class CoCoOpModelOptions(Options):
    """How CoCoOpCLIP is made, under its authors' names."""

    n_ctx: int = option(16, "context tokens, where CTX_INIT is empty", least=1)
    ctx_init: str = option("", "words to start from; empty: random vectors (std 0.02)")
    ctx_count: str = option("tokens", "what of CTX_INIT is learned, see CoOp's", among=("tokens", "words"))


@dataclass(frozen=True)
class CoCoOpOptions(CoCoOpModelOptions):
    """CoCoOp's settings."""

    KEY = "COCOOP"

    prec: str = option("fp16", "precision", among=PRECISIONS)


class CoCoOpCLIP(AdaptedCLIP):
    """CLIP with a context that a small network shifts per picture.

    clip_model: a backbone or a CLIP of OpenAI's `clip`, used in place. classnames: C names, in label order.
    options: those of CoCoOpModelOptions. text_encoder, text_chunk, text_memory: as in AdaptedCLIP.
    Learned: ctx (M x W), meta_net.linear1 (D -> D/16), meta_net.linear2 (D/16 -> W), with a ReLU between.
    """

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        *,
        text_encoder: str = "fast",
        text_chunk: int = 0,
        text_memory: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(clip_model, False, text_encoder, text_chunk, text_memory)
        self.options = o = CoCoOpModelOptions(**options)
        ctx, self._rest = initial_context(
            self.backbone.token_embedding, self.vocabulary, o.n_ctx, o.ctx_init, 0, o.ctx_count == "words"
        )
        self.ctx = nn.Parameter(ctx)
        D, W = self.backbone.features, self.backbone.text_width
        self.meta_net = nn.Sequential(
            OrderedDict(linear1=nn.Linear(D, D // 16), relu=nn.ReLU(inplace=True), linear2=nn.Linear(D // 16, W))
        )
        self._names = tokenize_names(classnames, self.vocabulary)
        self._plan: PromptPlan | None = None

    def _plan_for(self, B: int) -> PromptPlan:
        """A context per picture, before the same names."""
        if self._plan is None or self._plan.G != B:
            M = len(self.ctx)
            contexts = [Context([slot(b * M + i) for i in range(M)], rest=self._rest) for b in range(B)]
            self._plan = context_plan(contexts, [self._names] * B, self.vocabulary).to(self.ctx.device)
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

    OPTIONS = CoCoOpOptions

    def build_model(self) -> None:
        o = self.options
        model = CoCoOpCLIP(self.load_clip(), self.classnames, **o.keywords(CoCoOpModelOptions), **self.encoder_options)
        self.model = model
        print(described(o.ctx_init, o.ctx_count, model.ctx.shape[-2]))
        self.finish_model()

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits_BC = self.model(images)
        return F.cross_entropy(logits_BC, labels), {"acc": accuracy(logits_BC, labels)}

    def adopt(self, identity: dict, tensors: dict[str, torch.Tensor]) -> None:
        self.options = with_count_of(tensors.get("ctx"), self.options, self.model.vocabulary)
        if self.options.ctx_count != self.model.options.ctx_count:
            self.rebuild_model()


add_config = CoCoOpOptions.add_config
