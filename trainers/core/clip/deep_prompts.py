"""Models whose prompts are replaced before several blocks of the towers: what MaPLe, IVLP and PromptSRC have in common.

Shapes: B pictures, C classes, M prompt tokens, W width of a tower, D features, H x W pixels.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .adapted import AdaptedCLIP
from .exportable import ExportableLinear
from .precision import cosine_logits
from .prompts import Context, context_plan, first_tokens, slot, tokenize_names


class DeepPromptedCLIP(AdaptedCLIP):
    """CLIP whose context tokens are replaced before blocks 1, 2, ... of the text tower, shared by all classes.

    A subclass says what replaces them (deep_text) and what stands in the picture tower (visual_prompts). ctx: M x W, the
    first tokens of the words it starts from; further words stay fixed behind it.
    """

    ctx: nn.Parameter

    def make_context(self, classnames: Sequence[str], n_ctx: int, words: str) -> None:
        """Sets ctx and the prompts [SOS] ctx further words name . [EOT]."""
        ctx, rest = first_tokens(self.backbone.token_embedding, self.vocabulary, n_ctx, words)
        self.ctx = nn.Parameter(ctx)
        context = Context([slot(i) for i in range(n_ctx)], rest=rest)
        self.plan = context_plan([context], [tokenize_names(classnames, self.vocabulary)], self.vocabulary)

    def deep_text(self) -> dict[int, torch.Tensor]:
        """Block -> M x W."""
        raise NotImplementedError

    def text_features(self) -> torch.Tensor:
        """Normalised; C x D."""
        return F.normalize(self.text_encoder.of_all(self.plan, self.ctx, self.deep_text())[0], dim=-1)

    @torch.no_grad()
    def exportable(self) -> ExportableLinear:
        class_CD = self.logit_scale.exp() * self.cached_in_eval(self.text_features)
        return ExportableLinear(self.backbone, class_CD, visual=self.visual_prompts())

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """exp(logit_scale) <f, w_c>; B x C. In evaluation without gradients the text is encoded once."""
        text_CD = self.cached_in_eval(self.text_features)
        return cosine_logits(self.image_features(images_BCHW), text_CD, self.logit_scale.exp())


def check_depth(name: str, depth: int, blocks: int) -> None:
    """Raises ValueError for a depth beyond a tower's blocks."""
    if depth > blocks:
        has = f"has {blocks} blocks" if blocks else "takes no prompts (a ResNet, or one of timm)"
        raise ValueError(
            f"{name} is {depth}, but this tower {has}: set TRAINER.*.{name} lower, or use another backbone"
        )


def drawn_rows(count: int, tokens: int, width: int) -> nn.ParameterList:
    """`count` times tokens x width, drawn with deviation 0.02."""
    return nn.ParameterList(nn.Parameter(nn.init.normal_(torch.empty(tokens, width), std=0.02)) for _ in range(count))
