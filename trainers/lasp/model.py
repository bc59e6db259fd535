"""LASP: text-to-text optimisation for language-aware soft prompting (Bulat, Tzimiropoulos, CVPR 2023).

Shapes: B pictures, C training classes, A >= C classes of the text loss, G soft prompts, T templates, M context tokens,
W width of the text transformer, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..core.clip.adapted import AdaptedCLIP, Trained
from ..core.clip.backbones import Backbone
from ..core.clip.exportable import ExportableLinear
from ..core.clip.hard_features import hard_features
from ..core.clip.losses import text_to_text_loss, with_noise
from ..core.clip.precision import cosine_logits
from ..core.clip.prompts import (
    Context,
    clean_classname,
    context_plan,
    initial_context,
    slot,
    tokenize_names,
    with_count_of,
)
from .options import LaspModelOptions, LaspOptions


class LaspPrompts(nn.Module):
    """LASP's learned tensors under the names of its checkpoints: ctx (M x W, or G x M x W), w (1 x D)."""

    def __init__(self, ctx: torch.Tensor, features: int, correction: bool) -> None:
        super().__init__()
        self.ctx = nn.Parameter(ctx)
        self.w = nn.Parameter(torch.zeros(1, features)) if correction else None


class LaspCLIP(AdaptedCLIP):
    """CLIP with one soft prompt, or G of them, each kept near its share of the hard templates.

    clip_model: a backbone or a CLIP of OpenAI's `clip`, used in place. classnames: C names, in label order.
    templates: T hard templates, each with one `{}`; soft prompt g has an even share of them, in order.
    text_classnames: the A names that the text loss scores; they begin with `classnames`, which is the default.
    options: those of LaspModelOptions. text_encoder, text_chunk, text_memory: as in AdaptedCLIP.

    Learned: prompt_learner.ctx (M x W, or G x M x W), prompt_learner.w (1 x D), image_encoder...ln_1/ln_2.
    """

    from_features = True
    hard_TAD: torch.Tensor

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        templates: Sequence[str],
        text_classnames: Sequence[str] | None = None,
        *,
        text_encoder: str = "fast",
        text_chunk: int = 0,
        text_memory: int = 0,
        **options: Any,
    ) -> None:
        o = LaspModelOptions(**options)
        super().__init__(clip_model, o.finetune_vit_ln, text_encoder, text_chunk, text_memory)
        self.options = o
        if o.n_groups > len(templates):
            raise ValueError(f"N_GROUPS is {o.n_groups}: use 1 to {len(templates)}, the number of templates")
        all_names = [clean_classname(name) for name in text_classnames or classnames]
        if all_names[: len(classnames)] != [clean_classname(name) for name in classnames]:
            raise ValueError("text_classnames must begin with classnames, in the same order")
        self.n_classes = len(classnames)
        hard_TAD = hard_features(self.text_encoder, templates, all_names, self.vocabulary)
        self.register_buffer("hard_TAD", hard_TAD, persistent=False)
        self.group_sizes = [len(share) for share in torch.arange(len(templates)).tensor_split(o.n_groups)]
        ctx, rest = initial_context(
            self.backbone.token_embedding, self.vocabulary, o.n_ctx, o.ctx_init,
            copies=o.n_groups if o.n_groups > 1 else 0, counted_in_words=o.ctx_count == "words",
        )  # fmt: skip
        self.prompt_learner = LaspPrompts(ctx, hard_TAD.shape[-1], o.enable_correction and o.train_w)
        M = ctx.shape[-2]
        contexts = [Context([slot(g * M + i) for i in range(M)], rest=rest) for g in range(o.n_groups)]
        self.plan = context_plan(contexts, [tokenize_names(all_names, self.vocabulary)] * o.n_groups, self.vocabulary)

    def text_features(self) -> torch.Tensor:
        """normalise(TextEncoder(prompt) + w); G x A x D."""
        ctx, w = self.prompt_learner.ctx, self.prompt_learner.w
        features_GAD = self.text_encoder.of_all(self.plan, ctx.reshape(-1, ctx.shape[-1]))
        return F.normalize(features_GAD if w is None else features_GAD + w.to(features_GAD.dtype), dim=-1)

    def logits(self, image_BD: torch.Tensor, text_GAD: torch.Tensor) -> torch.Tensor:
        """exp(logit_scale) times the mean over prompts of <f, w_gc>; B x C."""
        mean_CD = text_GAD[:, : self.n_classes].mean(0)
        return cosine_logits(image_BD, mean_CD, self.logit_scale.exp())

    def seen_hard_features(self) -> torch.Tensor:
        """The hard features as one step's text loss sees them, with a fresh draw of noise or without; T x A x D."""
        return with_noise(self.hard_TAD, self.options.text_noise)

    def losses(
        self, images_BCHW: torch.Tensor, labels_B: torch.Tensor, hard_TAD: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The two losses, unweighted scalars "cls" and "text", and "logits_BC".

        hard_TAD: what seen_hard_features() gave for this step; drawn here where it is not given.
        """
        hard_TAD = self.seen_hard_features() if hard_TAD is None else hard_TAD
        image_BD, text_GAD = self.image_features(images_BCHW), self.text_features()
        logits_BC = self.logits(image_BD, text_GAD)
        hard = hard_TAD.split(self.group_sizes)
        scale = self.logit_scale.exp()
        over = self.options.text_loss_over
        text = [text_to_text_loss(text_GAD[g : g + 1], own, scale, over) for g, own in enumerate(hard)]
        return {"cls": F.cross_entropy(logits_BC, labels_B), "text": torch.stack(text).mean(), "logits_BC": logits_BC}

    @torch.no_grad()
    def exportable(self) -> ExportableLinear:
        mean_CD = self.cached_in_eval(self.text_features)[:, : self.n_classes].mean(0)
        return ExportableLinear(self.backbone, self.logit_scale.exp() * mean_CD)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "LaspCLIP":
        own = with_count_of(trained.tensors["prompt_learner.ctx"], LaspOptions.of(trained.options), backbone.vocabulary)
        options = own.keywords(LaspModelOptions)
        # a hard template for each prompt: the others only bear on the losses
        return cls(backbone, classnames, ["a photo of a {}."] * options["n_groups"], **options)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits, B x C. In evaluation without gradients the text is encoded once, see weights_changed()."""
        text_GAD, image_BD = self.cached_in_eval(self.text_features), self.image_features(images_BCHW)
        return self.with_head(self.logits(image_BD, text_GAD), image_BD)
