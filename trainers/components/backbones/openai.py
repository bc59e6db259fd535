"""OpenAI's CLIP (Radford et al., 2021), in the layout of its `clip` package: ViT or ResNet, causal text tower, BPE tokens.

Shapes: B pictures, H x W pixels, N prompts, L positions of the context, M prompt tokens, P visual positions, W width of a
tower, D features.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from clip.model import CLIP, ResidualAttentionBlock, Transformer, build_model, convert_weights
from clip.simple_tokenizer import SimpleTokenizer
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear as _OutProj

from .protocol import Vocabulary
from .weights import read_state_dict

__all__ = ["CLIP", "ClipVocabulary", "OpenAIBackbone", "build_model", "load_openai"]


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

    def encode(self, text: str) -> list[int]:
        return _tokenizer().encode(text)

    def words(self, ids: list[int]) -> list[str]:
        return [_tokenizer().decoder[i] for i in ids]


class OpenAIBackbone:
    """A model of clip.build_model. Frozen, in place. Raises TypeError, naming the class, for a model of another kind."""

    family = "openai"

    def __init__(self, model: Any) -> None:
        if not is_openai(model):
            raise TypeError(
                f"{type(model).__module__}.{type(model).__qualname__} is no model of OpenAI's clip package, and would be "
                "encoded wrongly: give what clip.build_model or load_backbone returns"
            )
        self.model: Any = model
        self.visual: Any = self.model.visual
        self.token_embedding: nn.Embedding = self.model.token_embedding
        self.logit_scale: torch.Tensor = self.model.logit_scale
        self.vocabulary: Vocabulary = ClipVocabulary(self.model.positional_embedding.shape[0])
        self.input_size = int(self.visual.input_resolution)
        self.features: int = self.model.text_projection.shape[1]
        self.text_width: int = self.model.text_projection.shape[0]
        self.text_layers = len(self.model.transformer.resblocks)

    @property
    def text_dtype(self) -> torch.dtype:
        # clip's convert_weights halves the tower but leaves the embeddings in float32, as it does what is learned
        return self.model.text_projection.dtype

    def encoder_modules(self) -> dict[str, Any]:
        names = ("token_embedding", "transformer", "positional_embedding", "ln_final", "text_projection")
        return {name: getattr(self.model, name) for name in names}

    def halve(self) -> None:
        convert_weights(self.model)

    def reads_tokens_once(self) -> bool:
        """Not where blocks or attention are no longer CLIP's own (hooks, adapters, LoRA): the fast path goes round them."""
        gone_round: list[tuple[nn.Module, type]] = [(self.model.transformer, Transformer)]
        for block in self.model.transformer.resblocks:
            attn = block.attn
            gone_round += [(block, ResidualAttentionBlock), (attn, nn.MultiheadAttention), (attn.out_proj, _OutProj)]
        return all(
            type(module) is kind
            and not (
                module._forward_hooks or module._forward_pre_hooks or {"forward", "attention"} & vars(module).keys()
            )
            for module, kind in gone_round
        )

    def run_text(self, x_NLW: torch.Tensor, read_at_N: torch.Tensor) -> torch.Tensor:
        m = self.model
        x_NLW = x_NLW + m.positional_embedding.type(x_NLW.dtype)
        x_NLW = m.transformer(x_NLW.permute(1, 0, 2)).permute(1, 0, 2)
        return m.ln_final(x_NLW[torch.arange(len(x_NLW), device=x_NLW.device), read_at_N]) @ m.text_projection

    def visual_layer_norms(self) -> dict[str, nn.Parameter]:
        """ln_1 and ln_2 of every block of a visual transformer; a ResNet has none."""
        return {name: p for name, p in self.visual.named_parameters() if ".ln_1." in name or ".ln_2." in name}

    def encode_image(
        self, images_BCHW: torch.Tensor, prompts: Mapping[int, torch.Tensor] | None = None
    ) -> torch.Tensor:
        images_BCHW = images_BCHW.type(self.visual.conv1.weight.dtype)
        if not prompts:
            return self.visual(images_BCHW)
        return self._encode_with_prompts(images_BCHW, prompts)

    def _encode_with_prompts(self, images_BCHW: torch.Tensor, prompts: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Prompt tokens stand after the patches; those of a later layer take the place of an earlier one's."""
        v = self.visual
        if not hasattr(v, "class_embedding"):
            raise ValueError("a ResNet has no positions where visual prompts could stand: use a ViT")
        outside = [layer for layer in prompts if not 0 <= layer < len(v.transformer.resblocks)]
        if outside:
            raise ValueError(f"visual prompts for layer {outside[0]}: this tower has layers 0 to "
                             f"{len(v.transformer.resblocks) - 1}")  # fmt: skip
        patches_BPW = v.conv1(images_BCHW).flatten(2).permute(0, 2, 1)
        class_B1W = v.class_embedding.to(patches_BPW.dtype).expand(len(patches_BPW), 1, -1)
        x_BPW = torch.cat([class_B1W, patches_BPW], dim=1) + v.positional_embedding.to(patches_BPW.dtype)
        x_PBW = v.ln_pre(x_BPW).permute(1, 0, 2)
        own = len(x_PBW)
        for layer, block in enumerate(v.transformer.resblocks):
            if layer in prompts:
                prompt_MBW = prompts[layer].to(x_PBW.dtype)[:, None].expand(-1, x_PBW.shape[1], -1)
                x_PBW = torch.cat([x_PBW[:own], prompt_MBW])
            x_PBW = block(x_PBW)
        features_BW = v.ln_post(x_PBW[0])
        return features_BW if v.proj is None else features_BW @ v.proj


def is_openai(model: Any) -> bool:
    """Whether `model` is of OpenAI's class: others have attributes of the same names and compute something else."""
    return any(kind.__name__ == "CLIP" and kind.__module__.split(".")[0] == "clip" for kind in type(model).__mro__)


def load_openai(path: Path) -> OpenAIBackbone:
    """A CLIP from a file, on the CPU, in float32, in evaluation mode, every parameter frozen.

    The weights pass through clip's own build_model, so most of them have been rounded to half precision, as in every
    CoOp-family project. Raises ValueError for a file that is no CLIP.
    """
    state = read_state_dict(path)
    for key in ("text_projection", "positional_embedding", "token_embedding.weight"):
        if key not in state:
            raise ValueError(f'{path} is no CLIP in OpenAI\'s layout: it has no tensor "{key}"')
    try:
        model = build_model(dict(state))
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is no CLIP in OpenAI's layout: {str(error).splitlines()[0]}") from error
    return OpenAIBackbone(model.float().eval().requires_grad_(False))
