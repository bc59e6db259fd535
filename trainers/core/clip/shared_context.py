"""Models with one text feature for each class; and those whose classes share one context, as IVLP, MaPLe and others do.

Shapes: B pictures, C classes, M prompt tokens, W width of a tower, D features, H x W pixels.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .adapted import AdaptedCLIP
from .exportable import Exportable, ExportableLinear
from .precision import cosine_logits
from .prompts import Context, context_plan, slot, tokenize_names


class ClassTextCLIP(AdaptedCLIP):
    """CLIP whose logits are those of pictures and of one text feature for each class."""

    def text_features(self) -> torch.Tensor:
        """Hook: normalised; C x D."""
        raise NotImplementedError

    @torch.no_grad()
    def exportable(self) -> Exportable:
        class_CD = self.logit_scale.exp() * self.cached_in_eval(self.text_features)
        return ExportableLinear(self.backbone, class_CD, visual=self.visual_prompts())

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """exp(logit_scale) <f, w_c>; B x C. In evaluation without gradients the text is encoded once."""
        text_CD, image_BD = self.cached_in_eval(self.text_features), self.image_features(images_BCHW)
        return self.with_head(cosine_logits(image_BD, text_CD, self.logit_scale.exp()), image_BD)


class SharedContextCLIP(ClassTextCLIP):
    """CLIP with M learned context tokens before the class name.

    A subclass may say what replaces them before further blocks of the text tower (deep_text), and what stands in the
    picture tower (visual_prompts). ctx: M x W.
    """

    ctx: nn.Parameter

    def set_context(self, classnames: Sequence[str], ctx: torch.Tensor, rest: list[int]) -> None:
        """The prompts [SOS] ctx rest name . [EOT]. ctx: M x W, what it starts from; rest: tokens that stay fixed."""
        self.ctx = nn.Parameter(ctx)
        context = Context([slot(i) for i in range(len(ctx))], rest=rest)
        self.plan = context_plan([context], [tokenize_names(classnames, self.vocabulary)], self.vocabulary)

    def deep_text(self) -> dict[int, torch.Tensor]:
        """Hook: block -> M x W."""
        return {}

    def text_features(self) -> torch.Tensor:
        """Normalised; C x D."""
        return F.normalize(self.text_encoder.of_all(self.plan, self.ctx, self.deep_text())[0], dim=-1)


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
