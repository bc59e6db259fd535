"""CoOp: context optimisation (Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models", IJCV 2022).

Shapes: B pictures, C classes, M context tokens, W width of the text transformer, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.prompts import Context, context_plan, initial_context, slot, tokenize_names, with_count_of
from ..core.clip.shared_context import ClassTextCLIP
from .options import CoOpModelOptions, CoOpOptions


class CoOpCLIP(ClassTextCLIP):
    """CLIP with M learned context tokens before, around or after the class name.

    clip_model: a backbone or a CLIP of OpenAI's `clip`, used in place. classnames: C names, in label order.
    options: those of CoOpModelOptions. text_encoder, text_chunk, text_memory: as in AdaptedCLIP.
    Learned: ctx, M x W, or with csc C x M x W. Raises ValueError for options that make no sense.
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
        self.options = o = CoOpModelOptions(**options)
        many = len(classnames) if o.csc and not o.ctx_init else 0
        ctx, rest = initial_context(
            self.backbone.token_embedding, self.vocabulary, o.n_ctx, o.ctx_init, many, o.ctx_count == "words"
        )
        self.ctx = nn.Parameter(ctx)
        M = ctx.shape[-2]
        before = {"end": M, "middle": M // 2, "front": 0}[o.class_token_position]
        numbers = [[slot(c * M + i) for i in range(M)] for c in range(max(many, 1))]
        contexts = [Context(own[:before], own[before:], rest) for own in numbers]
        names = tokenize_names(classnames, self.vocabulary)
        self.plan = context_plan(contexts, [[name] for name in names] if many else [names], self.vocabulary)

    def text_features(self) -> torch.Tensor:
        """Normalised; C x D."""
        features_GCD = self.text_encoder.of_all(self.plan, self.ctx.reshape(-1, self.ctx.shape[-1]))
        return F.normalize(features_GCD.flatten(0, 1), dim=-1)

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "CoOpCLIP":
        own = with_count_of(trained.tensors["ctx"], CoOpOptions.of(trained.options), backbone.vocabulary)
        options = own.keywords(CoOpModelOptions)
        if options.get("csc") and list(classnames) != list(trained.classnames):
            raise ValueError("class-specific contexts belong to the classes they were trained on, and these are others")
        return cls(backbone, classnames, **options)
