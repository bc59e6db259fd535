"""Tiny models of every family of open_clip, with random weights, as folders that open_clip calls local-dir."""

import json
import logging
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram, WordLevel
from tokenizers.trainers import UnigramTrainer, WordLevelTrainer
from transformers import MT5Config, PreTrainedTokenizerFast, XLMRobertaConfig

WORDS = [
    "a photo of a dog", "a sketch of the red panda", "itap of an accordion", "air plane anchor ant barrel bass beaver",
    "texture type of pet flower", "a good photo of the large bonsai", "a black and white photo", "o'neill 747 tank top",
]  # fmt: skip
CLIP_WORDS = {"vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
HUB_WORDS = {"width": 32, "heads": 2, "layers": 2, "hf_tokenizer_name": "beside"}
VIT = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
TIMM = {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear", "image_size": 160}
CAUSAL, WHOLE = True, False
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}

# name -> model_cfg, kind of tokeniser, whether the text tower is causal and read at EOT, visual LayerNorms, preprocessing
FAMILIES: dict[str, tuple[dict[str, Any], str, bool, int, dict[str, Any]]] = {
    "openai": ({"quick_gelu": True, "vision_cfg": VIT, "text_cfg": CLIP_WORDS | {"context_length": 77}}, "", CAUSAL, 8, {}),
    "layer-scale": (
        {"vision_cfg": VIT | {"ls_init_value": 0.3}, "text_cfg": CLIP_WORDS | {"ls_init_value": 0.2}}, "", CAUSAL, 8, {},
    ),
    "resnet": (
        {"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16}, "text_cfg": CLIP_WORDS}, "", CAUSAL, 0, {},
    ),
    "eva": ({"custom_text": True, "vision_cfg": TIMM, "text_cfg": CLIP_WORDS}, "", CAUSAL, 24, {}),
    "pe": (
        {"custom_text": True, "vision_cfg": VIT, "text_cfg": CLIP_WORDS | {"context_length": 32}}, "", CAUSAL, 8,
        HALF | {"interpolation": "bilinear"},
    ),
    "metaclip2": (
        {"vision_cfg": VIT, "text_cfg": HUB_WORDS | {"context_length": 40, "pool_type": "eos", "eos_id": 2}},
        "pieces between", CAUSAL, 8, {},
    ),
    "mobileclip": (
        {"custom_text": True, "vision_cfg": VIT, "text_cfg": CLIP_WORDS | {"no_causal_mask": True}}, "", WHOLE, 8, {},
    ),
    "siglip": (
        {"custom_text": True, "init_logit_bias": -10, "vision_cfg": TIMM | {"timm_pool": "avg"},
         "text_cfg": HUB_WORDS | {"context_length": 40, "no_causal_mask": True, "pool_type": "last", "proj_bias": True,
                                  "tokenizer_kwargs": {"clean": "canonicalize"}}},
        "pieces", WHOLE, 24, HALF,
    ),
    "siglip2": (
        {"custom_text": True, "init_logit_bias": -10, "vision_cfg": VIT,
         "text_cfg": HUB_WORDS | {"context_length": 40, "no_causal_mask": True, "pool_type": "last", "proj_bias": True}},
        "pieces, no space first", WHOLE, 8, HALF,
    ),
    "clipa": (
        {"vision_cfg": VIT | {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
         "text_cfg": HUB_WORDS | {"context_length": 16, "no_causal_mask": True, "pool_type": "last",
                                  "tokenizer_kwargs": {"strip_sep_token": True}}},
        "words between", WHOLE, 8, {},
    ),
    "first": (
        {"custom_text": True, "vision_cfg": VIT,
         "text_cfg": HUB_WORDS | {"context_length": 16, "no_causal_mask": True, "pool_type": "first",
                                  "proj_type": "none"}},
        "words between", WHOLE, 8, {},
    ),
    "coca": (
        {"custom_text": True, "vision_cfg": VIT | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
         "text_cfg": CLIP_WORDS | {"context_length": 76, "embed_cls": True, "output_tokens": True},
         "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1,
                            "attn_pooler_heads": 4}},
        "", WHOLE, 8, {},
    ),
    "xlm-roberta": (
        {"vision_cfg": VIT, "text_cfg": {"hf_model_name": "beside", "hf_tokenizer_name": "beside", "context_length": 40,
                                         "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler"}},
        "pieces between", WHOLE, 8, {},
    ),
    "mt5": (
        {"vision_cfg": VIT, "text_cfg": {"hf_model_name": "beside", "hf_tokenizer_name": "beside", "context_length": 40,
                                         "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"}},
        "pieces", WHOLE, 8, {},
    ),
}  # fmt: skip


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """words or pieces (SentencePiece's manner, with or without a space put first), between special tokens or before one."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    if kind.startswith("words"):
        made = Tokenizer(WordLevel(unk_token="<unk>"))
        made.normalizer = normalizers.Lowercase()
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        made.train_from_iterator([*WORDS, "."], WordLevelTrainer(special_tokens=special))
    else:
        made = Tokenizer(Unigram())
        scheme = "never" if "no space" in kind else "always"
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        made.decoder = decoders.Metaspace(prepend_scheme=scheme)
        characters = UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False)
        made.train_from_iterator([*WORDS, "abcdefghijklmnopqrstuvwxyz .,?!-'0123456789"], characters)
    around = "<s> $A </s>" if kind.endswith("between") else "$A </s>"
    made.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def build(family: str, folder: Path) -> str:
    """Writes a model of the family into `folder`; the name under which it is loaded."""
    config, kind, _, _, preprocessing = FAMILIES[family]
    config = json.loads(json.dumps(config)) | {"embed_dim": 32}
    folder.mkdir(parents=True, exist_ok=True)
    text = config["text_cfg"]
    if kind:
        made = tokenizer(kind)
        made.save_pretrained(folder)
        if "hf_model_name" in text:
            hub: Any = MT5Config(vocab_size=len(made), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
                                 pad_token_id=1, eos_token_id=2) if family == "mt5" else XLMRobertaConfig(
                vocab_size=len(made), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                max_position_embeddings=48, pad_token_id=1, bos_token_id=0, eos_token_id=2)  # fmt: skip
            hub.save_pretrained(folder)
            text["hf_model_name"] = str(folder)
        else:
            text["vocab_size"] = len(made)
    if family == "first":
        text["width"] = config["embed_dim"]
    written = {"model_cfg": config, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    logging.disable(logging.NOTSET)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.nan_to_num_(0, 0, 0)  # CoCa leaves one without any value
            parameter.add_(0.02 * torch.randn_like(parameter))  # no scale or bias is left at what makes it idle
    save_file(
        {k: v.contiguous().clone() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return f"open_clip:local-dir:{folder}"
