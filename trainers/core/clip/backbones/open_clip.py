"""Models of open_clip: LAION, DataComp, DFN, MetaCLIP, EVA, PE, SigLIP, MobileCLIP, CoCa, and people's own files.

Text towers are open_clip's own transformer (causal or not, read at EOT, at the first or at the last position) or one of
`transformers`. Tokenisers are CLIP's or come from a hub. docs/BACKBONES.md has the families.

Shapes: B pictures, H x W pixels, N prompts, L positions of the context, W width of the text tower, D features.
"""

import difflib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear as OutProj
from torch.nn.utils import parametrize

from ..doors import (
    Block,
    DeepText,
    DeepVisual,
    Inserted,
    longer_mask,
    through_text,
    through_visual,
)
from .openai import MEAN, STD, cut_between_words
from .protocol import Backbone, CausalTower, Preprocessing, Vocabulary, is_untouched
from .weights import file_sha256

try:
    import open_clip
    from open_clip.factory import load_checkpoint
    from open_clip.hf_model import HFTextEncoder
    from open_clip.pretrained import (
        download_pretrained,
        download_pretrained_from_hf,
        get_pretrained_cfg,
        list_pretrained_tags_by_model,
    )
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
    from open_clip.transformer import ResidualAttentionBlock, TextTransformer, Transformer, VisionTransformer
except ModuleNotFoundError as missing:
    raise ValueError(
        f"backbones of open_clip need the package {missing.name}: pip install open_clip_torch transformers"
    ) from missing


_CHOOSE = "choose a CLIP of OpenAI's layout"

# --- words --------------------------------------------------------------------------------------------------------------


class BpeVocabulary:
    """CLIP's byte-pair encoder as open_clip has it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.context_length = tokenizer.context_length
        self.sos, self.eot, self.pad = [tokenizer.sot_token_id], [tokenizer.eot_token_id], 0

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def cut(self, before: str, name: str, *after: str) -> list[list[int]]:
        return cut_between_words(self.encode, before, name, *after)

    def words(self, ids: list[int]) -> list[str]:
        return [self._tokenizer.decoder[i] for i in ids]


class HubVocabulary:
    """A tokeniser of `transformers`, as HFTokenizer uses it. Raises ValueError for one that is not understood."""

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.tokenizer_mode or not tokenizer.tokenizer.is_fast:
            kind = tokenizer.tokenizer_mode or "no fast"
            raise ValueError(f"the tokeniser is of a kind that is not understood ({kind}): choose another backbone")
        self._clean, self._hub = tokenizer.clean_fn, tokenizer.tokenizer
        self.context_length = tokenizer.context_length
        # what stands around a text, and behind it, as the tokeniser itself says
        row, plain = self._hub("a").input_ids, self._hub("a", add_special_tokens=False).input_ids
        start = next((i for i in range(len(row)) if row[i : i + len(plain)] == plain), None)
        padded = tokenizer("a")[0].tolist()
        if start is None or not plain or padded[: start + len(plain)] != row[: start + len(plain)]:
            raise ValueError("the tokeniser does not put a text between fixed tokens: choose another backbone")
        self.sos, self.eot = row[:start], padded[start + len(plain) : len(row)]
        self.pad = padded[-1]

    def encode(self, text: str) -> list[int]:
        return self._hub(self._clean(text), add_special_tokens=False).input_ids

    def cut(self, before: str, name: str, *after: str) -> list[list[int]]:
        parts = (before, name, *after)
        text = self._clean("".join(parts))
        ends, at = [], 0  # where each part ends in the cleaned text
        for part in parts:
            cleaned = self._clean(part).strip()
            at += len(text[at:]) - len(text[at:].lstrip()) if cleaned else 0
            if not text.startswith(cleaned, at):
                raise ValueError(f'cleaning joins "{part}" with what is beside it')
            at += len(cleaned)
            ends.append(at)
        if text[at:].strip():
            raise ValueError(f'cleaning adds "{text[at:]}"')
        found = self._hub(text, add_special_tokens=False, return_offsets_mapping=True)
        pieces: list[list[int]] = [[] for _ in parts]
        for token, (first, last) in zip(found.input_ids, found.offset_mapping, strict=True):
            first += len(text[first:last]) - len(text[first:last].lstrip())  # the space before a word belongs to it
            owner = next((i for i, end in enumerate(ends) if last <= end), len(parts) - 1)
            if owner and first < ends[owner - 1] < last:
                raise ValueError(f'a token belongs to "{parts[owner - 1]}" and to "{parts[owner]}"')
            pieces[owner].append(token)
        if not pieces[1]:
            raise ValueError(f'no token belongs to "{name}"')
        return pieces

    def words(self, ids: list[int]) -> list[str]:
        return self._hub.convert_ids_to_tokens(ids)


class _WithoutPadding:
    """A vocabulary for towers that recognise padding by its token id. A text that contains this id is refused."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._all = vocabulary
        self.context_length, self.sos, self.eot = vocabulary.context_length, vocabulary.sos, vocabulary.eot
        self.pad, self.words = vocabulary.pad, vocabulary.words

    def encode(self, text: str) -> list[int]:
        ids = self._all.encode(text)
        if self.pad in ids:
            raise ValueError(f'"{text}" holds {self.words([self.pad])[0]!r}, which this text tower takes for padding')
        return ids

    def cut(self, before: str, name: str, *after: str) -> list[list[int]]:
        self.encode(before + name + "".join(after))
        return self._all.cut(before, name, *after)


# --- towers -------------------------------------------------------------------------------------------------------------


class OpenClipBackbone(Backbone):
    """A model of open_clip with a text tower of its own transformer.

    tokenizer: what open_clip.get_tokenizer returns for it. Raises ValueError for a tower or tokeniser that is not
    understood.
    """

    family = "open_clip"

    def __init__(self, model: Any, tokenizer: Any, preprocessing: Preprocessing) -> None:
        self.model: Any = model
        self.visual: Any = model.visual
        self.preprocessing = preprocessing
        self.logit_scale: torch.Tensor = model.logit_scale
        self._text: Any = getattr(model, "text", model)  # CLIP holds the parts of its tower itself
        self.vocabulary: Vocabulary = _vocabulary(tokenizer)
        self._read_tower()

    def _read_tower(self) -> None:
        text = self._text
        if not isinstance(text, TextTransformer | open_clip.CLIP):
            raise ValueError(
                f"the text tower is a {type(text).__name__}, which is not understood: choose another backbone"
            )
        self.token_embedding: nn.Embedding = text.token_embedding
        self.text_width: int = text.token_embedding.embedding_dim
        self.text_layers: int = len(text.transformer.resblocks)
        self._pool, self._class_token, self._masks_padding = reading_of(text)
        self.features: int = _width_of(text.text_projection, self.text_width)
        v = self.vocabulary
        if self._pool == "eos" and getattr(text, "eos_id", getattr(text, "text_eos_id", None)) not in v.eot[-1:]:
            raise ValueError(
                "the text tower is read at a token that the tokeniser does not end with: choose another one"
            )
        if self._pool == "argmax" and v.eot != [self.token_embedding.num_embeddings - 1]:
            raise ValueError("the text tower is read at its largest token id, which is not the tokeniser's last: choose "
                             "another backbone")  # fmt: skip
        if self._masks_padding:
            self.vocabulary = _WithoutPadding(v)

    @property
    def text_dtype(self) -> torch.dtype:
        return self._text.positional_embedding.dtype

    def halve(self) -> None:
        """Halves all weights except embeddings and normalisations, which stay and compute in float32, as in OpenAI's
        models; so do the parts that a method computes a matrix from, but not the matrix."""
        computed = [m for m in self.model.modules() if isinstance(m, parametrize.ParametrizationList)]
        theirs = {part for own in computed for part in own.modules() if part is not own}
        for module in self.model.modules():
            if _is_norm(module):
                _compute_in_float32(module)
            elif module is not self.token_embedding and module not in theirs:
                for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                    if tensor is None or tensor is self.logit_scale or not tensor.is_floating_point():
                        continue
                    if module not in computed or name == "original":
                        tensor.data = tensor.data.half()

    def causal_tower(self) -> CausalTower | None:
        text, blocks = self._text, causal_blocks(self._text)
        if blocks is None:
            return None
        return CausalTower(blocks, text.positional_embedding, lambda x_NW: self._project(text.ln_final(x_NW)))

    def run_text(self, x_NLW: torch.Tensor, length_N: torch.Tensor, deep: DeepText | None = None) -> torch.Tensor:
        text = self._text
        mask = None if text.attn_mask is None else text.attn_mask.to(x_NLW.device)
        if self._class_token is not None:
            x_NLW = torch.cat([x_NLW, self._class_token.to(x_NLW.dtype).expand(x_NLW.shape[0], 1, -1)], dim=1)
        L = x_NLW.shape[1]
        if self._masks_padding:
            padding = self._padding_mask(length_N, L).to(x_NLW.dtype)
            mask = padding if mask is None else mask[:L, :L].to(x_NLW.dtype) + padding
        x_NLW = x_NLW + text.positional_embedding[:L].to(x_NLW.dtype)
        read_at_N = length_N - 1
        if self._class_token is not None or self._pool == "last":
            read_at_N = torch.full_like(length_N, L - 1)
        elif self._pool == "first":
            read_at_N = torch.zeros_like(length_N)
        if deep:
            if not own_blocks(text):
                raise ValueError(
                    f"the text tower is no plain transformer of open_clip, and takes no deep prompts: {_CHOOSE}"
                )
            blocks, masks = text.transformer.resblocks, [mask] * len(text.transformer.resblocks)
            inserts = isinstance(deep, Inserted)
            if inserts and (self._masks_padding or self._pool == "first"):
                raise ValueError(
                    f"the text tower masks padding or is read at SOS, and takes no inserted rows: {_CHOOSE}"
                )
            if isinstance(deep, Inserted) and mask is not None:
                first = min(deep.rows)
                masks[first:] = [longer_mask(mask, deep.rows[first].shape[-2])] * (len(masks) - first)
            given = [
                functools.partial(_batch_first, block, text.transformer.batch_first, own)
                for block, own in zip(blocks, masks, strict=True)
            ]
            x_NLW = through_text(
                x_NLW, deep, len(self.vocabulary.sos), given, functools.partial(_in_parts, text.transformer), mask
            )
            read_at_N = read_at_N + (x_NLW.shape[1] - L)
            x_NW = x_NLW[torch.arange(x_NLW.shape[0], device=x_NLW.device), read_at_N]
        elif mask is None and own_blocks(text):
            x_NW = self._to_one_position(x_NLW, read_at_N)
        else:
            x_NLW = text.transformer(x_NLW, attn_mask=mask)
            x_NW = x_NLW[torch.arange(x_NLW.shape[0], device=x_NLW.device), read_at_N]
        return self._project(text.ln_final(x_NW))

    def _to_one_position(self, x_NLW: torch.Tensor, read_at_N: torch.Tensor) -> torch.Tensor:
        """The one exact saving where every position sees every other: the last block is computed only at the position
        read."""
        *blocks, last = self._text.transformer.resblocks
        for block in blocks:
            x_NLW = block(x_NLW)
        rows_N = torch.arange(x_NLW.shape[0], device=x_NLW.device)
        seen_NLW = last.ln_1(x_NLW)
        found_N1W = last.attn(seen_NLW[rows_N, read_at_N][:, None], seen_NLW, seen_NLW, need_weights=False)[0]
        x_NW = x_NLW[rows_N, read_at_N] + last.ls_1(found_N1W[:, 0])
        return x_NW + last.ls_2(last.mlp(last.ln_2(x_NW)))

    def _padding_mask(self, length_N: torch.Tensor, L: int) -> torch.Tensor:
        """0 where a position may be looked at, -inf where padding is; (N heads) x L x L."""
        text = self._text
        seen_NL = torch.arange(L, device=length_N.device) < length_N[:, None]
        if self._class_token is not None:
            if text.correct_cls_mask:
                seen_NL[:, -1] = True
            else:  # CoCa was trained with a mask that has the class token at the front, although it is at the end
                seen_NL = torch.cat([torch.ones_like(seen_NL[:, :1]), seen_NL[:, :-1]], dim=1)
        mask_NLL = torch.where(seen_NL, 0.0, -torch.inf)[:, None].expand(-1, L, -1)
        return mask_NLL.repeat_interleave(text.heads, dim=0)

    def _project(self, x_NW: torch.Tensor) -> torch.Tensor:
        projection = self._text.text_projection
        if projection is None:
            return x_NW
        return projection(x_NW) if isinstance(projection, nn.Module) else x_NW @ projection

    @property
    def visual_blocks(self) -> int:
        v = self.visual
        return (
            len(v.transformer.resblocks) if type(v) is VisionTransformer and type(v.transformer) is Transformer else 0
        )

    def encode_image(self, images_BCHW: torch.Tensor, prompts: DeepVisual | None = None) -> Any:
        images_BCHW = images_BCHW.to(self._pixel_dtype)
        if prompts is None:
            return self.model.encode_image(images_BCHW, normalize=False)
        v = self.visual
        if not self.visual_blocks:
            raise ValueError(
                f"the picture tower is a {type(v).__name__}, not open_clip's own vision transformer, and takes no prompts: "
                f"{_CHOOSE}"
            )
        patches_BPW = v.conv1(images_BCHW).flatten(2).permute(0, 2, 1)
        class_B1W = v.class_embedding.to(patches_BPW.dtype).expand(patches_BPW.shape[0], 1, -1)
        x_BPW = torch.cat([class_B1W, patches_BPW], dim=1) + v.positional_embedding.to(patches_BPW.dtype)
        blocks = [functools.partial(_batch_first, b, v.transformer.batch_first, None) for b in v.transformer.resblocks]
        x_BPW, rows_BMW = through_visual(
            v.patch_dropout(x_BPW), prompts, v.ln_pre, blocks, functools.partial(_in_parts, v.transformer)
        )
        pooled_BW, _ = v._pool(x_BPW)
        features_BD = pooled_BW if v.proj is None else pooled_BW @ v.proj
        return (features_BD, v.ln_post(rows_BMW)) if prompts.reads else features_BD

    @property
    def _pixel_dtype(self) -> torch.dtype:
        """Of what looks at pixels: a convolution."""
        return next(m.weight.dtype for m in self.visual.modules() if isinstance(m, nn.Conv2d))

    def visual_layer_norms(self) -> dict[str, nn.Parameter]:
        """ln_1 and ln_2 of open_clip's own blocks, norm1 and norm2 of timm's; none in a convolutional network."""
        found: dict[str, nn.Parameter] = {}
        for name, module in self.visual.named_modules():
            own = name.rpartition(".")[2]
            if isinstance(module, nn.LayerNorm) and own in ("ln_1", "ln_2", "norm1", "norm2"):
                found |= {f"{name}.{part}": p for part, p in module.named_parameters(recurse=False)}
        return found


class HubTextBackbone(OpenClipBackbone):
    """A model of open_clip whose text tower is one of `transformers` (RoBERTa, XLM-R, mT5, NLLB)."""

    def _read_tower(self) -> None:
        text = self._text
        self.token_embedding = text.transformer.get_input_embeddings()
        self.text_width = self.token_embedding.embedding_dim
        self.text_layers = int(getattr(text.config, "num_hidden_layers", 12))
        self.features = text.output_dim
        self.vocabulary = _WithoutPadding(self.vocabulary)
        if self.vocabulary.pad != text.config.pad_token_id:
            raise ValueError("the text tower and the tokeniser pad with different tokens: choose another backbone")

    @property
    def text_dtype(self) -> torch.dtype:
        return next(m.weight.dtype for m in self._text.transformer.modules() if isinstance(m, nn.Linear))

    def matrices(self) -> Iterator[nn.Module]:
        text = set(self._text.modules())  # towers of `transformers` take the dtype to compute in from their weights
        return (module for module in super().matrices() if module not in text)

    def causal_tower(self) -> CausalTower | None:
        return None

    def run_text(self, x_NLW: torch.Tensor, length_N: torch.Tensor, deep: DeepText | None = None) -> torch.Tensor:
        if deep:
            raise ValueError(f"text towers of transformers take no deep prompts: {_CHOOSE}")
        text = self._text
        seen_NL = (torch.arange(x_NLW.shape[1], device=x_NLW.device) < length_N[:, None]).long()
        out = text.transformer(inputs_embeds=x_NLW, attention_mask=seen_NL)
        return text.proj(text.pooler(out, seen_NL))


def _batch_first(block: Any, batch_first: bool, mask: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """A block on batch x positions x width, whichever of them it takes first."""
    return block(x, attn_mask=mask) if batch_first else block(x.transpose(0, 1), attn_mask=mask).transpose(0, 1)


def _is_norm(module: nn.Module) -> bool:
    kinds = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm)
    own = any(True for _ in module.parameters()) and not any(True for _ in module.children())
    return isinstance(module, kinds) or (
        own and type(module).__name__.lower().endswith("norm")
    )  # of timm, transformers


def _compute_in_float32(norm: nn.Module) -> None:
    """And give back what came, in whatever it comes later."""
    if hasattr(norm, "given_dtype"):
        return

    def widened(module: Any, given: Any) -> tuple:
        module.given_dtype = given[0].dtype
        return (given[0].float(), *given[1:])

    norm.given_dtype = torch.float16  # type: ignore[assignment]
    norm.register_forward_pre_hook(widened)
    norm.register_forward_hook(lambda module, _, found: found.to(module.given_dtype))


def reading_of(text: Any) -> tuple[str, torch.Tensor | None, bool]:
    """The position at which open_clip's own tower is read, the class token after the text (CoCa's), and whether padding
    is masked."""
    class_token = getattr(text, "cls_emb", None)
    pool = getattr(text, "pool_type", getattr(text, "text_pool_type", ""))
    return pool, class_token, class_token is not None or getattr(text, "use_pad_mask", False)


def causal_blocks(text: Any) -> list[Block] | None:
    """The blocks of a tower that is causal, read at EOT, and unchanged; None for any other."""
    pool, _, masks_padding = reading_of(text)
    causal = getattr(text, "attn_mask", None) is not None and pool in ("argmax", "eos") and not masks_padding
    return _in_parts(text.transformer) if causal else None


def own_blocks(text: Any) -> bool:
    """Whether the tower's transformer is open_clip's plain one, and unchanged, so that its parts may be used one by one."""
    return _in_parts(text.transformer) is not None


def _in_parts(transformer: Any) -> list[Block] | None:
    gone_round: list[tuple[Any, type]] = [(transformer, Transformer)]
    for b in transformer.resblocks:
        gone_round += [(b, ResidualAttentionBlock), (b.attn, nn.MultiheadAttention), (b.attn.out_proj, OutProj)]
    if not all(is_untouched(module, kind) for module, kind in gone_round):
        return None
    return [Block(b.ln_1, b.attn, b.ln_2, b.mlp, b.ls_1, b.ls_2) for b in transformer.resblocks]


def facts_of(architecture: str) -> dict[str, Any]:
    """Millions of parameters, pixels, context length and way of reading prompts of one of open_clip's architectures,
    without building it in memory."""
    config = open_clip.get_model_config(architecture)
    size = config["vision_cfg"].get("image_size", 224)
    facts = {"parameters": None, "pixels": size, "context": config["text_cfg"].get("context_length", 77), "fast": False}
    if "hf_model_name" not in config["text_cfg"]:  # for those, a hub would be asked
        with _quiet(), torch.device("meta"):
            model = open_clip.create_model(architecture, load_weights=False, pretrained_text=False, device="meta")
        facts["parameters"] = sum(p.numel() for p in model.parameters()) / 1e6
        facts["fast"] = causal_blocks(getattr(model, "text", model)) is not None
    return facts


def _vocabulary(tokenizer: Any) -> Vocabulary:
    if isinstance(tokenizer, HFTokenizer):
        return HubVocabulary(tokenizer)
    if isinstance(tokenizer, SimpleTokenizer):
        return BpeVocabulary(tokenizer)
    raise ValueError(f"the tokeniser is a {type(tokenizer).__name__}, which is not understood: choose another backbone")


def _width_of(projection: Any, otherwise: int) -> int:
    if projection is None:
        return otherwise
    return projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]


# --- names --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenClipSource:
    """open_clip:ARCHITECTURE/TAG or /FILE, open_clip:local-dir:FOLDER, open_clip:hf-hub:ORG/NAME, or hf-hub:ORG/NAME."""

    name: str
    family = "open_clip"

    @cached_property
    def _place(self) -> tuple[str, str]:
        """Where it comes from ("hf-hub", "local-dir" or "") and what it is called there."""
        name = self.name.removeprefix("open_clip:")
        for schema in ("hf-hub", "local-dir"):
            if name.startswith(f"{schema}:"):
                return schema, name.removeprefix(f"{schema}:")
        return "", name

    @property
    def architecture(self) -> str:
        schema, name = self._place
        return f"{schema}:{name}" if schema else name.partition("/")[0]

    @property
    def weights(self) -> str:
        schema, name = self._place
        return "" if schema else name.partition("/")[2]

    @cached_property
    def _config(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What open_clip knows of the architecture and of its preprocessing. Raises ValueError, OSError."""
        schema, name = self._place
        if not schema:
            config, known = open_clip.get_model_config(self.architecture), open_clip.list_models()
            if config is None:
                near = difflib.get_close_matches(self.architecture, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ":"
                raise ValueError(
                    f'open_clip knows no "{self.architecture}"{hint} python scripts/list_backbones.py shows all'
                )
            return config, self._published_preprocessing()
        if schema == "local-dir":
            file = Path(name) / "open_clip_config.json"
            if not file.is_file():
                raise ValueError(f"{file} is missing: open_clip's local-dir is a folder with that file and the weights")
        else:
            file = Path(_from_hub(name, "open_clip_config.json"))
        try:
            found = json.loads(file.read_text())
            config, preprocessing = found["model_cfg"], found.get("preprocess_cfg", {})
            if (config.get("text_cfg") or {}).get("tokenizer_kwargs", {}).get("trust_remote_code"):
                raise OSError(f"{file} asks to run a tokeniser's own code, which may do anything: it is not opened")
            return config, preprocessing
        except (AttributeError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is no configuration of open_clip: {error!r}") from error

    def _published_preprocessing(self) -> dict[str, Any]:
        """The tag's preprocessing; for a user's own file, that of the architecture's tags if they agree."""
        own = get_pretrained_cfg(self.architecture, self.weights)
        if own:
            return own
        tags = [get_pretrained_cfg(self.architecture, t) for t in list_pretrained_tags_by_model(self.architecture)]
        keys = ("mean", "std", "interpolation", "resize_mode")
        said = {json.dumps([tag.get(key) for key in keys]) for tag in tags}
        return {key: tags[0].get(key) for key in keys} if len(said) == 1 else {}

    def preprocessing(self) -> Preprocessing:
        config, said = self._config
        size = config["vision_cfg"].get("image_size", 224)
        size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        given = {key: value for key, value in said.items() if value is not None}
        mode = given.get("resize_mode", "shortest")
        if mode not in ("shortest", "squash"):
            raise ValueError(f'{self.name} resizes pictures in the manner "{mode}", which is not built')
        mean, std = (tuple(given.get(key, default)) for key, default in (("mean", MEAN), ("std", STD)))
        return Preprocessing(size, mean, std, given.get("interpolation", "bicubic"), mode)

    def file(self) -> Path:
        """The weights, fetched if need be. Raises ValueError for an unknown tag, OSError where they cannot be fetched."""
        schema, name = self._place
        self._check()
        if schema == "hf-hub":
            return Path(_from_hub(name))
        if schema == "local-dir":
            return self._weights_in(Path(name))
        if os.path.isfile(self.weights):
            return Path(self.weights)
        cfg = get_pretrained_cfg(self.architecture, self.weights)
        cached = _cached(cfg)
        if cached:
            return cached
        folder = Path("~/.cache/clip").expanduser()
        alone: AbstractContextManager = nullcontext()
        if cfg.get("url") and not cfg.get("hf_hub"):  # written under the final name, see weights.py
            folder.mkdir(parents=True, exist_ok=True)
            alone = FileLock(folder / ".lock")
        try:
            with alone:
                return Path(download_pretrained(cfg))
        except (OSError, RuntimeError) as error:
            raise OSError(f"{self.name} could not be downloaded ({_first_line(error)}). {self.missing()}") from error

    def _weights_in(self, folder: Path) -> Path:
        names = [f"{stem}.{kind}" for stem in ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
                 for kind in ("safetensors", "bin", "pth", "pt")]  # fmt: skip
        found = next((folder / name for name in names if (folder / name).is_file()), None)
        if found is None:
            raise ValueError(f"{folder} holds no weights: open_clip calls them {names[0]} or {names[5]}")
        return found

    def _check(self) -> None:
        """Raises ValueError for weights that do not exist, or were trained with another activation than is computed."""
        schema, _ = self._place
        if schema or os.path.isfile(self.weights):
            return
        config, _ = self._config
        tags = list_pretrained_tags_by_model(self.architecture)
        cfg = get_pretrained_cfg(self.architecture, self.weights)
        if not cfg:
            known = f"its tags are {', '.join(tags)}" if tags else "it has none published"
            wrong = f'"{self.weights}" is no file and no tag of' if self.weights else "name weights for"
            raise ValueError(f"{self.name}: {wrong} {self.architecture}; {known}; or give a file: open_clip:"
                             f"{self.architecture}/FILE")  # fmt: skip
        if cfg.get("quick_gelu") and not config.get("quick_gelu"):
            raise ValueError(
                f"{self.name} was trained with another activation (QuickGELU) than {self.architecture} computes: "
                f"use open_clip:{self.architecture}-quickgelu/{self.weights}"
            )

    def missing(self) -> str:
        schema, name = self._place
        self._check()
        if schema == "local-dir" or os.path.isfile(self.weights):
            return ""
        cfg = {"hf_hub": f"{name}/"} if schema else get_pretrained_cfg(self.architecture, self.weights)
        if _cached(cfg):
            return ""
        return (
            f"{self.name} is not on this machine: python scripts/prepare_data.py {self.name} on a connected machine, "
            "and copy its cache (HF_HOME), or give a file: open_clip:ARCHITECTURE/FILE"
        )

    def digest(self) -> str:
        """SHA-256 of weights and configuration, since the same weights give other features under another
        configuration."""
        config, _ = self._config
        about = {"weights": file_sha256(self.file()), "config": config, "preprocessing": asdict(self.preprocessing())}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def promised_digest(self) -> str:
        return ""

    def fetch(self) -> Path:
        self.load()  # tokeniser and configurations too
        return self.file()

    def load(self, weights: bool = True) -> Backbone:
        _ = self._config  # refuses what must not be opened
        file = self.file() if weights else None
        try:
            with _quiet():
                model = open_clip.create_model(self.architecture, load_weights=False, pretrained_text=False)
                if file:
                    load_checkpoint(model, str(file), strict=True)
                tokenizer = open_clip.get_tokenizer(self.architecture)
        except ImportError as error:
            raise ValueError(f"{self.name} needs the package {error.name}: pip install transformers") from error
        except OSError as error:  # the text tower's configuration, or the tokeniser, come from a hub
            raise OSError(f"{self.name} needs files of a hub that are not here: {_first_line(error)}") from error
        except Exception as error:
            raise ValueError(f"open_clip cannot open {self.name}: {_first_line(error)}") from error
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ValueError(f'{file} holds numbers that are not finite, first in "{name}": it is damaged')
        kind = HubTextBackbone if isinstance(getattr(model, "text", None), HFTextEncoder) else OpenClipBackbone
        try:
            return kind(model.float().eval().requires_grad_(False), tokenizer, self.preprocessing())
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences open_clip's warning that a model is random. The weights are read here in a second step."""
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)  # without any, Python would install one that prints
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        root.removeHandler(silent)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else repr(error)


def _from_hub(repository: str, file: str | None = None) -> str:
    try:
        return download_pretrained_from_hf(repository, filename=file)
    except (OSError, RuntimeError, ValueError) as error:
        raise OSError(f"{file or 'the weights'} of hf-hub:{repository} could not be fetched: "
                      f"{_first_line(error)}") from error  # fmt: skip


def _cached(cfg: Mapping[str, Any]) -> Path | None:
    """The file of published weights, if it is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    if cfg.get("hf_hub"):
        repository, name = os.path.split(cfg["hf_hub"])
        names = [name] if name else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
        names = [f"{os.path.splitext(names[0])[0]}.safetensors", *names]
        for each in names:
            found = try_to_load_from_cache(repository, each)
            if isinstance(found, str):
                return Path(found)
        return None
    cached = Path("~/.cache/clip").expanduser() / os.path.basename(cfg.get("url", ""))
    return cached if cfg.get("url") and cached.is_file() else None
