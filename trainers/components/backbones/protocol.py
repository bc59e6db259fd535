"""What a method may ask of a backbone. Nothing else in the project knows a family of models.

Shapes: B pictures, H x W pixels, N prompts, L positions of the context, W width of the text tower, D features.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class Vocabulary(Protocol):
    """How a text tower reads words."""

    context_length: int  # positions, SOS and EOT among them

    @property
    def sos(self) -> list[int]:
        """Token ids before every sentence."""
        ...

    @property
    def eot(self) -> list[int]:
        """Token ids after it; its feature is read at the last of them."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without SOS and EOT."""
        ...

    def words(self, ids: list[int]) -> list[str]:
        """What each token id stands for."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """Two towers with a common feature space. `model` is its authors' own object, used in place."""

    family: str
    model: Any
    vocabulary: Vocabulary
    visual: Any  # the picture tower; checkpoints name its tensors image_encoder.<name below visual>
    token_embedding: nn.Embedding  # token ids -> W
    logit_scale: torch.Tensor  # log of the factor of cosine similarities
    input_size: int  # height and width of the pictures that it takes
    features: int  # D
    text_width: int  # W
    text_layers: int

    @property
    def text_dtype(self) -> torch.dtype:
        """What the text tower computes in."""
        ...

    def reads_tokens_once(self) -> bool:
        """Whether the text tower is causal, read at EOT, and unchanged, so that text_encoder.py's fast path is exact."""
        ...

    def run_text(self, x_NLW: torch.Tensor, read_at_N: torch.Tensor) -> torch.Tensor:
        """Features (N x D, not normalised) of embeddings without positions, read at each prompt's position; all L
        positions are computed, by the model's own modules."""
        ...

    def encode_image(
        self, images_BCHW: torch.Tensor, prompts: Mapping[int, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Features (B x D, not normalised); prompts: layer -> (M x width) tokens that stand there in the visual tower."""
        ...

    def visual_layer_norms(self) -> dict[str, nn.Parameter]:
        """The LayerNorms before attention and MLP of every visual block, by name below `visual`."""
        ...

    def encoder_modules(self) -> dict[str, Any]:
        """The text tower's modules and parameters, for an nn.Module that encodes text to hold."""
        ...

    def halve(self) -> None:
        """Puts weights where the family computes in half precision into float16."""
        ...
