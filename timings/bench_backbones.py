"""Encoding 5 x 100 prompts as these two kinds of text tower allow, against open_clip's own encode_text on their tokens."""

import copy
from collections.abc import Callable

import open_clip
import torch
from common import DEVICE, alternate, classnames, groups, ratio, report, spread

from trainers.core.clip.backbones.open_clip import OpenClipBackbone
from trainers.core.clip.backbones.protocol import Preprocessing
from trainers.core.clip.prompts import SoftPrompts
from trainers.core.clip.text_tower import TextEncoder


def sizes(architecture: str) -> OpenClipBackbone:
    """A model of the architecture's sizes, random weights; CLIP's tokeniser in the place of those that come from a hub."""
    torch.manual_seed(0)
    model = open_clip.create_model(architecture, load_weights=False, pretrained_text=False).eval().requires_grad_(False)
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=model.context_length)
    if model.vocab_size < tokenizer.vocab_size:  # as many rows as CLIP's words need
        model.text.token_embedding = torch.nn.Embedding(tokenizer.vocab_size, model.text.width).requires_grad_(False)
    return OpenClipBackbone(model.to(DEVICE), copy.deepcopy(tokenizer), Preprocessing((224, 224), (0,) * 3, (1,) * 3))


def main() -> None:
    rows, kept = [], {}
    templates, names = [group[0] for group in groups(5)], classnames(100)
    for architecture in ("ViT-B-16", "ViT-B-16-SigLIP"):
        backbone = sizes(architecture)
        soft = SoftPrompts(templates, names, backbone.token_embedding, backbone.vocabulary).to(DEVICE)
        v, sentences = backbone.vocabulary, [t.format(n) for t in templates for n in names]
        ids = [v.sos + v.encode(s) + v.eot for s in sentences]
        tokens = torch.tensor([row + [v.pad] * (v.context_length - len(row)) for row in ids], device=DEVICE)
        encoder = TextEncoder(backbone)
        calls: dict[str, Callable[[], object]] = {
            "ours": torch.no_grad()(lambda e=encoder, s=soft: e(s.plan, s.vectors())),
            "open_clip": torch.no_grad()(lambda b=backbone, t=tokens: b.model.encode_text(t)),
        }
        found, own = calls["ours"](), calls["open_clip"]()
        apart = float((found.flatten(0, 1) - own).abs().max() / own.abs().max())  # type: ignore[attr-defined]
        times = alternate(calls, rounds=2)
        way = "token by token" if encoder.path == "fast" else "whole"
        gain = f"{ratio(times['open_clip'], times['ours']):.2f}"
        rows.append([architecture, way, *map(spread, times.values()), gain, f"{apart:.0e}"])
        kept[architecture] = times
    title = "Encoding 5 x 100 prompts, float32, without gradients: seconds, median (range)"
    header = ["", "prompts are read", "ours, s", "open_clip's encode_text, s", "open_clip / ours", "largest difference"]
    report("backbones", title, header, rows, times=kept)


if __name__ == "__main__":
    main()
