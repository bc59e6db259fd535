"""CoCoOp: conditional context optimisation (Zhou, Yang, Loy, Liu, CVPR 2022).

Each picture shifts the context: ctx + meta_net(f). One set of text features per picture, so nothing can be kept in
evaluation; the prefix SOS + context is shared by a picture's classes.

Shapes: B pictures, C classes, M context tokens, W width of the text transformer, D features, H x W pixels.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..core.clip.adapted import AdaptedCLIP, Trained
from ..core.clip.backbones import Backbone
from ..core.clip.exportable import ExportableConditional
from ..core.clip.precision import einsum
from ..core.clip.prompts import Context, PromptPlan, context_plan, initial_context, slot, tokenize_names, with_count_of
from .options import CoCoOpModelOptions, CoCoOpOptions


def meta_network(D: int, W: int) -> nn.Sequential:
    """The shift of the context that a picture's features give, D -> W."""
    return nn.Sequential(
        OrderedDict(linear1=nn.Linear(D, D // 16), relu=nn.ReLU(inplace=True), linear2=nn.Linear(D // 16, W))
    )


class CoCoOpCLIP(AdaptedCLIP):
    """CLIP with a context that a small network shifts per picture.

    clip_model: a backbone or a CLIP of OpenAI's `clip`, used in place. classnames: C names, in label order.
    options: those of CoCoOpModelOptions. text_encoder, text_chunk, text_memory: as in AdaptedCLIP.
    Learned: ctx (M x W), meta_net.linear1 (D -> D/16), meta_net.linear2 (D/16 -> W), with a ReLU between.
    """

    from_features = True

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
        self.meta_net = meta_network(D, W)
        self._names = tokenize_names(classnames, self.vocabulary)
        self._plans: dict[tuple[int, torch.device, bool], PromptPlan] = {}  # all of training, which recorded steps read

    def _plan_for(self, B: int) -> PromptPlan:
        """A context per picture, before the same names."""
        key = B, self.ctx.device, self.training
        if key not in self._plans:
            tested = [other for other in self._plans if not other[-1]]
            for other in tested[:-1] if not self.training else []:  # two are enough, a full batch's and the last one's
                del self._plans[other]
            M = len(self.ctx)
            contexts = [Context([slot(b * M + i) for i in range(M)], rest=self._rest) for b in range(B)]
            self._plans[key] = context_plan(contexts, [self._names] * B, self.vocabulary).to(self.ctx.device)
        return self._plans[key]

    @torch.no_grad()
    def exportable(self) -> ExportableConditional:
        plan, M = self._plan_for(1), len(self.ctx)
        prompts_CLW = nn.functional.embedding(plan.whole_prompts(), plan.bank(self.backbone.token_embedding, self.ctx))
        first = len(self.vocabulary.sos)
        context_L = torch.zeros(prompts_CLW.shape[1], device=self.ctx.device)
        context_L[first : first + M] = 1.0
        return ExportableConditional(self.backbone, prompts_CLW, context_L, plan.length_N, self.meta_net)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "CoCoOpCLIP":
        own = with_count_of(trained.tensors["ctx"], CoCoOpOptions.of(trained.options), backbone.vocabulary)
        options = own.keywords(CoCoOpModelOptions)
        return cls(backbone, classnames, **options)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """exp(logit_scale) <f_b, w_bc>; B x C."""
        image_BD = self.image_features(images_BCHW)
        shift_BW = self.meta_net(image_BD.to(self.ctx.dtype))
        context_BMW = self.ctx + shift_BW[:, None]
        text_BCD = self.text_encoder(self._plan_for(len(image_BD)), context_BMW.flatten(0, 1))
        text_BCD = F.normalize(text_BCD, dim=-1)
        return self.with_head(self.logit_scale.exp() * einsum("bd,bcd->bc", image_BD, text_BCD), image_BD)
