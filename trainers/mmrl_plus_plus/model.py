"""MMRL++: MMRL whose blocks share one map for each tower, add a low-rank part of their own to it, and keep a share of what
the last block has made of the tokens (Guo, Gu, IJCV 2026, arXiv 2505.10088).

Shapes: M representation tokens, W width of a tower, D features, R rank.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.doors import Inserted, VisualPrompts
from ..mmrl.model import MmrlCLIP, answers_with_both
from .options import MmrlPlusPlusModelOptions, MmrlPlusPlusOptions


class SharedMap(nn.Module):
    """tokens (W0 + A_i B_i)^T + b_i for each block i. Learned: weight W0, W x dim; down.<i> A_i, W x R; up.<i> B_i, R x
    dim, zero at first; bias.<i> b_i, alike at first."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        linear = nn.Linear(dim, width)
        self.weight = nn.Parameter(linear.weight.detach().clone())
        self._bias = linear.bias.detach().clone()
        self.down, self.up, self.bias = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()

    def add_blocks(self, count: int, rank: int) -> None:
        width, dim = self.weight.shape
        for _ in range(count):
            self.down.append(nn.Parameter(_drawn(width, rank)))
            self.up.append(nn.Parameter(torch.zeros(rank, dim)))
            self.bias.append(nn.Parameter(self._bias.clone()))

    def rows(self, tokens: torch.Tensor, first: int) -> dict[int, torch.Tensor]:
        """Block -> M x W, from block `first` on."""
        own = zip(self.down, self.up, self.bias, strict=True)
        return {first + i: F.linear(tokens, self.weight + A @ B, b) for i, (A, B, b) in enumerate(own)}


def _drawn(count: int, rank: int) -> torch.Tensor:
    return nn.init.kaiming_uniform_(torch.empty(count, rank), a=math.sqrt(5))


class MmrlPlusPlusCLIP(MmrlCLIP):
    """MmrlCLIP with fewer parameters and tokens that flow on.

    beta: share of a block's own tokens; the rest is what the last block has made of those before. Learned: tokens; maps
    to_text and to_vision (SharedMap); rep_down (W x R) and rep_up (R x D, zero at first), which are added to CLIP's own
    projection of pictures. Raises ValueError as MmrlCLIP, and for a picture tower without a projection.
    """

    options: Any
    to_text: Any
    to_vision: Any

    def __init__(
        self, clip_model: Any, classnames: Sequence[str], template: str, *, beta: float = 0.9, **given: Any
    ) -> None:
        super().__init__(clip_model, classnames, template, **given)
        self.beta = beta

    def make_options(self, options: dict[str, Any]) -> MmrlPlusPlusModelOptions:
        return MmrlPlusPlusModelOptions(**options)

    def make_tokens(self, dim: int) -> None:
        b, o = self.backbone, self.options
        if b.visual.proj is None:
            raise ValueError("MMRL++ adds to the projection of the picture tower, and this one has none: use another")
        self.rep_down = nn.Parameter(_drawn(b.visual_width, o.proj_rank))
        self.rep_up = nn.Parameter(torch.zeros(o.proj_rank, b.features))
        self.tokens = nn.Parameter(nn.init.normal_(torch.empty(o.n_tokens, dim), std=0.02))
        self.to_vision, self.to_text = SharedMap(dim, b.visual_width), SharedMap(dim, b.text_width)
        self.to_vision.add_blocks(b.visual_blocks - o.first_block, o.map_rank)
        self.to_text.add_blocks(b.text_layers - o.first_block, o.map_rank)

    def visual_prompts(self) -> VisualPrompts:
        rows = self.to_vision.rows(self.tokens, self.options.first_block)
        return VisualPrompts(rows, "after_ln_pre", "after_class", reads=True, keeps=1 - self.beta)

    def inserted_text(self) -> Inserted:
        return Inserted(self.to_text.rows(self.tokens, self.options.first_block), 1 - self.beta)

    def representation_projection(self) -> torch.Tensor:
        return self.backbone.visual.proj + self.rep_down @ self.rep_up

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "MmrlPlusPlusCLIP":
        o, identity = MmrlPlusPlusOptions.of(trained.options), trained.identity
        both = answers_with_both(o.heads, trained.classnames, classnames)
        own = o.keywords(MmrlPlusPlusModelOptions)
        fixed = {"dim": o.dim, "beta": identity["beta"], "both_heads": both}
        return cls(backbone, classnames, identity["templates"][0], **fixed, **own)
