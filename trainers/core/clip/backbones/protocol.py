"""The interface of a backbone. Methods use only this; no other part of the project depends on a model family.

Shapes: B pictures, H x W pixels, N prompts, L positions of the context, M prompt tokens, W width of the text tower,
D features.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.utils import parametrize

from ..doors import Block, DeepText, DeepVisual


@dataclass(frozen=True)
class Preprocessing:
    """What a backbone wants done to a picture. mean, std: per channel, of values from 0 to 1."""

    size: tuple[int, int]  # height and width in pixels
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"  # the shorter edge to `size`, then the middle; squash: both edges to `size`

    def __post_init__(self) -> None:
        """Raises ValueError for what no backbone wants: files say it, too."""
        faults = {
            "size": not all(type(n) is int and 0 < n <= 4096 for n in self.size) or len(self.size) != 2,
            "mean": not _are_numbers(self.mean),
            "std": not _are_numbers(self.std) or min(self.std) <= 0,
            "interpolation": self.interpolation not in ("bicubic", "bilinear", "nearest"),
            "resize_mode": self.resize_mode not in ("shortest", "squash"),
        }
        for name, is_there in faults.items():
            if is_there:
                raise ValueError(f"{name} of the preprocessing is {str(getattr(self, name))[:60]}")

    def transform(self) -> Callable[[Any], torch.Tensor]:
        """PIL picture -> 3 x H x W."""
        from torchvision import transforms as T  # slow to import

        mode = T.InterpolationMode(self.interpolation)
        steps: list[Any] = [T.Resize(self.size if self.resize_mode == "squash" else max(self.size), interpolation=mode)]
        if self.resize_mode != "squash":
            steps.append(T.CenterCrop(self.size))
        return T.Compose([*steps, T.Lambda(_to_rgb), T.ToTensor(), T.Normalize(self.mean, self.std)])


def _to_rgb(picture: Any) -> Any:
    """With a name, since workers that are not forked find it by that."""
    return picture.convert("RGB")


def _are_numbers(values: Any) -> bool:
    return len(values) == 3 and all(isinstance(v, int | float) and math.isfinite(v) for v in values)


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
        """Token ids after it; a tower that reads its feature at the end of the text reads it at the last of them."""
        ...

    @property
    def pad(self) -> int:
        """The token id in the positions behind."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, cleaned as the family does, without SOS and EOT."""
        ...

    def cut(self, before: str, name: str, *after: str) -> list[list[int]]:
        """Token ids of the parts joined, cut where they meet. Raises ValueError where a token belongs to two of them, and
        where none belongs to `name`."""
        ...

    def words(self, ids: list[int]) -> list[str]:
        """What each token id stands for."""
        ...


@dataclass(frozen=True)
class CausalTower:
    """A text tower whose mask is causal and whose feature is read at EOT, in parts. finish: N x W -> N x D."""

    blocks: list[Block]
    positional_embedding: torch.Tensor
    finish: Callable[[torch.Tensor], torch.Tensor]


@runtime_checkable
class Backbone(Protocol):
    """Two towers with a common feature space. `model` is its authors' own object, used in place."""

    family: str
    model: Any
    vocabulary: Vocabulary
    preprocessing: Preprocessing
    visual: Any  # the picture tower; checkpoints name its tensors image_encoder.<name below visual>
    token_embedding: nn.Embedding  # token ids -> W
    logit_scale: torch.Tensor  # log of the factor of cosine similarities; a bias beside it (SigLIP) cancels in softmax
    features: int  # D
    text_width: int  # W
    text_layers: int

    @property
    @abstractmethod
    def text_dtype(self) -> torch.dtype:
        """What the text tower computes in."""

    @abstractmethod
    def causal_tower(self) -> CausalTower | None:
        """The text tower in parts if it is causal, read at EOT and unmodified, so that the fast path of text_tower.py
        is exact. None if each prompt must be encoded whole."""

    @abstractmethod
    def run_text(self, x_NLW: torch.Tensor, length_N: torch.Tensor, deep: DeepText | None = None) -> torch.Tensor:
        """Features (N x D, not normalised) of embeddings without positions, by the model's own modules.

        All L positions are given; `length_N` is the number of positions per prompt that are not padding (SOS, text,
        EOT). deep: vectors that replace the positions after SOS before some blocks, or are inserted there, or that
        attention reads beside all positions. Raises ValueError for a tower that does not support this.
        """

    @abstractmethod
    def encode_image(self, images_BCHW: torch.Tensor, prompts: DeepVisual | None = None) -> Any:
        """Features (B x D, not normalised). Raises ValueError for `prompts` in a tower without a door for them."""

    @property
    def visual_width(self) -> int:
        """W of a visual transformer; 0 of a tower without a door for prompts."""
        return self.visual.conv1.out_channels if self.visual_blocks else 0

    @property
    @abstractmethod
    def visual_blocks(self) -> int:
        """How many blocks it has; 0 of a tower without a door for prompts."""

    @abstractmethod
    def visual_layer_norms(self) -> dict[str, nn.Parameter]:
        """The LayerNorms before attention and MLP of every visual block, by name below `visual`."""

    @abstractmethod
    def halve(self) -> None:
        """Puts weights where the family computes in half precision into float16."""

    def unread(self, text: str) -> list[int]:
        """The token ids of `text` whose embedding is zero: words that this model has never learned to read."""
        ids = self.vocabulary.encode(text)
        rows = self.token_embedding.weight[
            torch.tensor(ids, dtype=torch.long, device=self.token_embedding.weight.device)
        ]
        return [token for token, zero in zip(ids, (rows == 0).all(1).tolist(), strict=True) if zero]

    def store_frozen(self, dtype: torch.dtype) -> None:
        """Converts frozen weights to `dtype` once, where autocast would convert them on every use.

        After this the towers work only under autocast to `dtype`; they give the same numbers.
        """
        for module in self.matrices():
            for p in module.parameters(recurse=False):
                if not p.requires_grad:
                    p.data = p.data.to(dtype)

    def matrices(self) -> Iterator[nn.Module]:
        """The modules whose weights autocast turns into another type."""
        for module in self.model.modules():
            if isinstance(module, nn.Linear | nn.modules.conv._ConvNd | nn.MultiheadAttention):
                yield module

    def remember(self, what: tuple[Any, ...], compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """compute(), which depends only on the model's weights and on `what`. A cache replaces this method."""
        return compute()

    # --- what follows from that, for every family ---------------------------------------------------------------------

    @property
    def transform(self) -> Callable[[Any], torch.Tensor]:
        """From a PIL picture to what encode_image takes, without the dimension B."""
        return self.preprocessing.transform()

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Features of sentences, not normalised; N x D. Raises ValueError for a sentence longer than the context."""
        v = self.vocabulary
        rows = [v.sos + v.encode(text) + v.eot for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if len(row) > v.context_length:
                shown = text if len(text) <= 60 else f"{text[:57]}..."
                raise ValueError(
                    f'"{shown}" has {len(row)} tokens, but the text tower reads at most {v.context_length}'
                )
        tokens_NL = torch.tensor([row + [v.pad] * (v.context_length - len(row)) for row in rows])
        device = self.token_embedding.weight.device
        x_NLW = self.token_embedding(tokens_NL.to(device)).to(self.text_dtype)
        return self.run_text(x_NLW, torch.tensor([len(row) for row in rows], device=device))


class Source(Protocol):
    """A backbone by name, before it is opened."""

    @property
    def name(self) -> str: ...

    @property
    def family(self) -> str: ...

    @property
    def architecture(self) -> str: ...

    @property
    def weights(self) -> str:
        """The tag or file of its weights."""
        ...

    def missing(self) -> str:
        """What to do, in one line, where it is not on this machine; empty where it is."""
        ...

    def fetch(self) -> Path:
        """Brings all that it needs onto this machine; where its weights lie. Raises OSError, ValueError."""
        ...

    def digest(self) -> str:
        """SHA-256 of everything that determines its features; downloads the weights if needed. Raises OSError,
        ValueError."""
        ...

    def promised_digest(self) -> str:
        """The expected digest() if its publisher states it, without any download; else empty."""
        ...

    def preprocessing(self) -> Preprocessing:
        """What it wants done to pictures; known without opening large files where that is possible."""
        ...

    def load(self, weights: bool = True) -> Backbone:
        """On the CPU, in float32, in evaluation mode, frozen. weights: False for random ones, for tests."""
        ...


def is_untouched(module: nn.Module, kind: type) -> bool:
    """Whether `module` is of that class and computes what the class says: no hook, no method replaced.

    Weights made by torch's parametrize (LoRA) are allowed, since reading them gives the computed weight.
    """
    own = type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)
    return own is kind and not (
        module._forward_hooks or module._forward_pre_hooks or {"forward", "attention"} & vars(module).keys()
    )
