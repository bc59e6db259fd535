"""IVLP: prompt tokens in both towers, before each of their first blocks, that know nothing of each other.

Shapes: B pictures, C classes, M prompt tokens, W width of a tower, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.doors import VisualPrompts
from ..core.clip.prompts import first_tokens
from ..core.clip.shared_context import SharedContextCLIP, check_depth, drawn_rows
from .options import DeepOptions, IvlpOptions


class IvlpCLIP(SharedContextCLIP):
    """CLIP with independent prompts in both towers.

    clip_model: a backbone or a CLIP of OpenAI's `clip`, used in place. classnames: C names, in label order. options: those
    of DeepOptions. text_encoder, text_chunk, text_memory: as in AdaptedCLIP. Learned: ctx (M x W), deep_rows.<j-1> before
    block j of the text tower, visual_rows.<j> before block j of the picture tower. Raises ValueError for a depth beyond a
    tower's blocks.
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
        self.options = o = DeepOptions(**options)
        b = self.backbone
        check_depth("PROMPT_DEPTH_TEXT", o.prompt_depth_text, b.text_layers)
        check_depth("PROMPT_DEPTH_VISION", o.prompt_depth_vision, b.visual_blocks)
        self.set_context(classnames, *first_tokens(b.token_embedding, self.vocabulary, o.n_ctx_text, o.ctx_init))
        self.deep_rows = drawn_rows(o.prompt_depth_text - 1, o.n_ctx_text, b.text_width)
        self.visual_rows = drawn_rows(o.prompt_depth_vision, o.n_ctx_vision, b.visual_width)

    @property
    def from_features(self) -> bool:  # type: ignore[override]
        """Whether the picture tower is as CLIP has it."""
        return not self.visual_rows

    def deep_text(self) -> dict[int, torch.Tensor]:
        return dict(enumerate(self.deep_rows, start=1))

    def visual_prompts(self) -> VisualPrompts | None:
        return VisualPrompts(dict(enumerate(self.visual_rows))) if self.visual_rows else None

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "IvlpCLIP":
        return cls(backbone, classnames, **IvlpOptions.of(trained.options).keywords(DeepOptions))
