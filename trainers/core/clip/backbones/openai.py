"""OpenAI's CLIP (Radford et al., 2021), in the layout of its `clip` package: ViT or ResNet, causal text tower, BPE tokens.

Shapes: B pictures, H x W pixels, N prompts, L positions of the context, M prompt tokens, P visual positions, W width of a
tower, D features.
"""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from clip.model import CLIP, ResidualAttentionBlock, Transformer, build_model, convert_weights
from clip.simple_tokenizer import SimpleTokenizer
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear as OutProj
from torch.nn.utils import parametrize

from ..doors import (
    Block,
    DeepText,
    DeepVisual,
    Inserted,
    Rows,
    longer_mask,
    through_text,
    through_visual,
)
from .protocol import Backbone, CausalTower, Preprocessing, Vocabulary, is_untouched
from .weights import backbone_file, file_sha256, published, read_state_dict

__all__ = ["CLIP", "ClipVocabulary", "OpenAIBackbone", "OpenAISource", "build_model"]

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's own preprocessing


@functools.cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


class ClipVocabulary:
    """CLIP's byte-pair encoder, built on first use."""

    def __init__(self, context_length: int = 77) -> None:
        self.context_length = context_length

    @property
    def sos(self) -> list[int]:
        return self.encode("<|startoftext|>")

    @property
    def eot(self) -> list[int]:
        return self.encode("<|endoftext|>")

    @property
    def pad(self) -> int:
        return 0

    def encode(self, text: str) -> list[int]:
        return _tokenizer().encode(text)

    def cut(self, before: str, name: str, *after: str) -> list[list[int]]:
        return cut_between_words(self.encode, before, name, *after)

    def words(self, ids: list[int]) -> list[str]:
        return [_tokenizer().decoder[i] for i in ids]


def cut_between_words(encode: Callable[[str], list[int]], before: str, name: str, *after: str) -> list[list[int]]:
    """Vocabulary.cut for byte-pair encoders, which never join words."""
    whole = encode(before + name + "".join(after))
    first, *last = encode(before), *(encode(part) for part in after)
    tail = [token for part in last for token in part]
    end = len(whole) - len(tail)
    if whole[: len(first)] != first or whole[end:] != tail or end <= len(first):
        raise ValueError(f'a token belongs to "{name}" and to what is beside it')
    return [first, whole[len(first) : end], *last]


class OpenAIBackbone(Backbone):
    """A model of clip.build_model, used in place. Raises TypeError, naming the class, for a model of another kind."""

    family = "openai"

    def __init__(self, model: Any) -> None:
        if not is_openai(model):
            raise TypeError(
                f"{type(model).__module__}.{type(model).__qualname__} is no model of OpenAI's clip package, and would be "
                'encoded wrongly: give what clip.build_model or load_backbone("open_clip:...") returns'
            )
        self.model: Any = model
        self.visual: Any = self.model.visual
        self.token_embedding: nn.Embedding = self.model.token_embedding
        self.logit_scale: torch.Tensor = self.model.logit_scale
        self.vocabulary: Vocabulary = ClipVocabulary(self.model.positional_embedding.shape[0])
        self.preprocessing = preprocessing_of(int(self.visual.input_resolution))
        self.features: int = self.model.text_projection.shape[1]
        self.text_width: int = self.model.text_projection.shape[0]
        self.text_layers = len(self.model.transformer.resblocks)

    @property
    def text_dtype(self) -> torch.dtype:
        # clip's convert_weights halves the tower but leaves the embeddings in float32, as it does what is learned
        return self.model.text_projection.dtype

    def halve(self) -> None:
        convert_weights(self.model)
        for module in self.model.modules():  # a matrix that a method computes is made of one that lies here
            if isinstance(module, parametrize.ParametrizationList):
                module.original.data = module.original.data.half()

    def causal_tower(self) -> CausalTower | None:
        m = self.model
        blocks = _in_parts(m.transformer)
        if blocks is None:
            return None
        return CausalTower(blocks, m.positional_embedding, lambda x_NW: m.ln_final(x_NW) @ m.text_projection)

    def run_text(self, x_NLW: torch.Tensor, length_N: torch.Tensor, deep: DeepText | None = None) -> torch.Tensor:
        m = self.model
        for block in m.transformer.resblocks:  # no buffer, so it stays behind when the model is moved
            block.attn_mask = block.attn_mask.to(x_NLW.device)
        x_NLW, L = x_NLW + m.positional_embedding.type(x_NLW.dtype), x_NLW.shape[1]
        if deep:
            blocks, sos = m.transformer.resblocks, len(self.vocabulary.sos)
            parts, mask = functools.partial(_in_parts, m.transformer), blocks[0].attn_mask
            with _masks_for(blocks, deep.rows) if isinstance(deep, Inserted) else nullcontext():
                x_NLW = through_text(x_NLW, deep, sos, _batch_first(blocks), parts, mask)
            length_N = length_N + (x_NLW.shape[1] - L)
        else:
            x_NLW = m.transformer(x_NLW.permute(1, 0, 2)).permute(1, 0, 2)
        return m.ln_final(x_NLW[torch.arange(x_NLW.shape[0], device=x_NLW.device), length_N - 1]) @ m.text_projection

    def visual_layer_norms(self) -> dict[str, nn.Parameter]:
        """ln_1 and ln_2 of every block of a visual transformer; a ResNet has none."""
        return {name: p for name, p in self.visual.named_parameters() if ".ln_1." in name or ".ln_2." in name}

    @property
    def visual_blocks(self) -> int:
        return len(self.visual.transformer.resblocks) if hasattr(self.visual, "class_embedding") else 0

    def encode_image(self, images_BCHW: torch.Tensor, prompts: DeepVisual | None = None) -> Any:
        images_BCHW = images_BCHW.type(self.visual.conv1.weight.dtype)
        if prompts is None:
            return self.visual(images_BCHW)
        v = self.visual
        if not self.visual_blocks:
            raise ValueError("a ResNet has no positions where visual prompts could stand: use a ViT")
        patches_BPW = v.conv1(images_BCHW).flatten(2).permute(0, 2, 1)
        class_B1W = v.class_embedding.to(patches_BPW.dtype).expand(patches_BPW.shape[0], 1, -1)
        x_BPW = torch.cat([class_B1W, patches_BPW], dim=1) + v.positional_embedding.to(patches_BPW.dtype)
        blocks = _batch_first(v.transformer.resblocks)
        x_BPW, rows_BMW = through_visual(x_BPW, prompts, v.ln_pre, blocks, functools.partial(_in_parts, v.transformer))
        features_BW = v.ln_post(x_BPW[:, 0])
        features_BD = features_BW if v.proj is None else features_BW @ v.proj
        return (features_BD, v.ln_post(rows_BMW)) if prompts.reads else features_BD


def _in_parts(transformer: Any) -> list[Block] | None:
    """The blocks of one of `clip`'s transformers; None where something has been changed in them."""
    gone_round: list[tuple[Any, type]] = [(transformer, Transformer)]
    for block in transformer.resblocks:
        gone_round += [(block, ResidualAttentionBlock), (block.attn, nn.MultiheadAttention)]
        gone_round += [(block.attn.out_proj, OutProj)]
    if not all(is_untouched(module, kind) for module, kind in gone_round):
        return None
    same = nn.Identity()
    return [Block(b.ln_1, b.attn, b.ln_2, b.mlp, same, same) for b in transformer.resblocks]


@contextmanager
def _masks_for(blocks: Sequence[Any], deep: Rows) -> Iterator[None]:
    """From the block on before which rows are inserted, the mask is for so many positions more."""
    first = min(deep)
    before = [block.attn_mask for block in blocks]
    for block in blocks[first:]:
        block.attn_mask = longer_mask(block.attn_mask, deep[first].shape[-2])
    try:
        yield
    finally:
        for block, mask in zip(blocks, before, strict=True):
            block.attn_mask = mask


def _batch_first(blocks: Iterable[nn.Module]) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """OpenAI's blocks take positions first."""

    def call(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return block(x.permute(1, 0, 2)).permute(1, 0, 2)

    return [functools.partial(call, block) for block in blocks]


@functools.lru_cache(maxsize=64)
def _pixels(source: "OpenAISource", sha256: str) -> int:
    """Height and width of the pictures that a file takes; looked at once per content."""
    state = source._state()
    if "visual.proj" in state:  # a ViT: patches, and a position for each and for the class token
        patch, positions = state["visual.conv1.weight"].shape[-1], len(state["visual.positional_embedding"]) - 1
    else:  # a ResNet, which reduces by 32
        patch, positions = 32, len(state["visual.attnpool.positional_embedding"]) - 1
    return patch * round(positions**0.5)


def is_openai(model: Any) -> bool:
    """Whether `model` is of OpenAI's class: others have attributes of the same names and compute something else."""
    return any(kind.__name__ == "CLIP" and kind.__module__.split(".")[0] == "clip" for kind in type(model).__mro__)


def preprocessing_of(size: int) -> Preprocessing:
    return Preprocessing((size, size), MEAN, STD)


@dataclass(frozen=True)
class OpenAISource:
    """A CLIP in OpenAI's layout, by its name or by its file."""

    name: str
    family = "openai"

    @property
    def architecture(self) -> str:
        return self.name if self.name in published() else "CLIP"

    @property
    def weights(self) -> str:
        return "openai" if self.name in published() else self.name

    def fetch(self) -> Path:
        return backbone_file(self.name)

    def missing(self) -> str:
        return published()[self.name].missing() if self.name in published() else ""

    def digest(self) -> str:
        """Of the file."""
        return file_sha256(self.fetch())

    def promised_digest(self) -> str:
        is_published = self.name in published() and not os.path.isfile(self.name)
        return published()[self.name].sha256 if is_published else ""

    def preprocessing(self) -> Preprocessing:
        if self.name in published():
            return preprocessing_of(published()[self.name].pixels)
        return preprocessing_of(_pixels(self, self.digest()))

    def load(self, weights: bool = True) -> OpenAIBackbone:
        """The weights pass through clip's own build_model, so most of them have been rounded to half precision, as in
        every CoOp-family project. Raises ValueError for a file that is no CLIP.
        """
        if not weights:
            raise ValueError(f'"{self.name}": random weights are for models by name of open_clip, "open_clip:ViT-B-16"')
        return OpenAIBackbone(self._built().float().eval().requires_grad_(False))

    def _state(self) -> dict[str, torch.Tensor]:
        path = self.fetch()
        state = read_state_dict(path)
        for key in ("text_projection", "positional_embedding", "token_embedding.weight", "visual.conv1.weight"):
            if key not in state:
                raise ValueError(f'{path} is no CLIP in OpenAI\'s layout: it has no tensor "{key}"')
        return state

    def _built(self) -> Any:
        try:
            return build_model(self._state())
        except (KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{self.fetch()} is no CLIP in OpenAI's layout: {reason}") from error
