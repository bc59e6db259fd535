"""MaPLe: prompts in both towers, those of the picture tower made from those of the text tower (Khattak et al., CVPR 2023).

Shapes: B pictures, C classes, M prompt tokens, W width of the text tower, V width of the picture tower, D features.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.doors import VisualPrompts
from ..core.clip.prompts import first_tokens
from ..core.clip.shared_context import SharedContextCLIP, check_depth, drawn_rows
from .options import MapleModelOptions, MapleOptions


class MapleCLIP(SharedContextCLIP):
    """CLIP with coupled prompts.

    clip_model: a backbone or a CLIP of OpenAI's `clip`, used in place. classnames: C names, in label order. options: those
    of MapleModelOptions. text_encoder, text_chunk, text_memory: as in AdaptedCLIP. Learned: ctx (M x W) and proj (W to V)
    for block 0; deep_rows.<j-1> (M x W) and projections.<j-1> for block j, the projections all alike at first. Raises
    ValueError for a depth beyond a tower's blocks.
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
        self.options = o = MapleModelOptions(**options)
        W, V = self.backbone.text_width, self.backbone.visual_width
        check_depth("PROMPT_DEPTH", o.prompt_depth, min(self.backbone.text_layers, self.backbone.visual_blocks))
        self.set_context(classnames, *first_tokens(self.backbone.token_embedding, self.vocabulary, o.n_ctx, o.ctx_init))
        self.proj = nn.Linear(W, V)
        self.deep_rows = drawn_rows(o.prompt_depth - 1, o.n_ctx, W)
        alike = nn.Linear(W, V)
        self.projections = nn.ModuleList(copy.deepcopy(alike) for _ in self.deep_rows)

    def deep_text(self) -> dict[int, torch.Tensor]:
        return dict(enumerate(self.deep_rows, start=1))

    def visual_prompts(self) -> VisualPrompts:
        deep = [project(rows) for project, rows in zip(self.projections, self.deep_rows, strict=True)]
        return VisualPrompts(dict(enumerate([self.proj(self.ctx), *deep])))

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "MapleCLIP":
        return cls(backbone, classnames, **MapleOptions.of(trained.options).keywords(MapleModelOptions))
