"""Trains the small CLIPs in assets/: real CLIPs, small enough to ship, for people without CLIP's weights or a GPU.

They are trained as CLIP was (Radford et al., 2021): pictures with one caption each, symmetric cross-entropy over all
pictures and captions of a batch, with a learned temperature and no labels for class or style. The training data are
the drawn world (datasets/drawing) and the "pretrain" part of Quick, Draw! and CIFAR-10, which no benchmark here uses.

    python scripts/prepare_data.py quickdraw cifar10
    python scripts/train_small_clip.py                      # the one that every small recipe names
    python scripts/train_small_clip.py --recipe second      # another one, the control of what was found with the first

After a stop, it continues when it is started again with the same options.

Shapes: N, B pictures, L tokens, D features, C channels, H x W pixels.
"""

import argparse
import hashlib
import importlib.util
import io
import json
import math
import os
import random
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clip
import numpy as np
import torch
from clip.model import CLIP, convert_weights
from PIL import Image
from torch.nn import functional as F
from tqdm import tqdm

from datasets.drawing.pictures import draw
from datasets.drawing.styles import render, to_tensor
from datasets.drawing.world import STYLE_SHARES, all_words, caption, view, words
from trainers.core.runs.files import write_atomically
from trainers.paths import ROOT, from_project

SIZE = 32
DRAWN = 200_000  # pictures of the drawn world
SHARES = {"drawn": 0.70, "quickdraw": 0.13, "cifar10": 0.17}  # of a batch
WRONG = 0.03  # captions that belong to another picture
VOCABULARY = 49408  # of CLIP's tokeniser
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


@dataclass(frozen=True)
class Recipe:
    """How one of the small CLIPs is made.

    The second differs from the first in all that a finding might hang on: the pictures that it sees and their order, how
    long it learns, the width and the optimiser of its image encoder, the dimensions of the joint space, and that a class
    is spoken of in wordings of its own, so that one template favours some classes and several even that out.
    """

    out: str
    seed: int
    steps: int
    features: int  # dimensions of the joint space
    width: int  # of the image encoder
    habits: float  # share of the captions whose wording is one that people use for this class
    muon: bool  # for the matrices inside the image encoder's blocks, in the place of AdamW


RECIPES = {
    "first": Recipe("drawn_clip.pt", seed=1, steps=2500, features=128, width=128, habits=0.0, muon=True),
    "second": Recipe("second_clip.pt", seed=2, steps=3600, features=256, width=192, habits=0.6, muon=False),
}


@dataclass
class Source:
    """Pictures of one kind, and what is said of each."""

    pictures_NCHW: torch.Tensor  # uint8
    names: list[str]  # what each picture is of, by its class
    say: Callable[[int, random.Random], str]  # the words of a caption about the i-th picture
    may_flip: bool  # drawn pictures already come in both orientations
    is_drawing: bool


def drawn_source(seed: int) -> Source:
    rng = random.Random(f"pretrain {seed}")
    views, pictures = [], np.empty((DRAWN, SIZE, SIZE, 3), np.uint8)
    for i in tqdm(range(DRAWN), desc="Drawing the world", mininterval=5):
        views.append(view(rng))
        pictures[i] = np.asarray(draw(views[i], rng, SIZE))
    pictures_NCHW = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    return Source(pictures_NCHW, [v.name for v in views], lambda i, rng: words(rng, views[i]), False, False)


def folder_source(name: str, root: Path) -> Source:
    folder = root / name
    if not (folder / f"split_{name}.json").is_file():
        raise SystemExit(f"error: {folder} is missing: python scripts/prepare_data.py {name} --root {root}")
    items = json.loads((folder / f"split_{name}.json").read_text())["pretrain"]
    names = [c.replace("_", " ") for _, _, c in items]
    pictures = [
        (to_tensor(Image.open(folder / "images" / path).convert("RGB").resize((SIZE, SIZE))) * 255).to(torch.uint8)
        for path, _, _ in tqdm(items, desc=f"Reading {name}", mininterval=5)
    ]
    return Source(torch.stack(pictures), names, lambda i, rng: names[i], True, name == "quickdraw")


def jitter(images_BCHW: torch.Tensor, mirrored_B: torch.Tensor, turn: float = 8) -> torch.Tensor:
    """Turns (up to `turn` degrees), scales and shifts each picture by its own random amount, and mirrors some."""
    B = len(images_BCHW)
    angle = (torch.rand(B) * 2 - 1) * math.radians(turn)
    zoom = 1 + (torch.rand(B) * 2 - 1) * 0.15
    mirror = 1 - 2.0 * mirrored_B
    shift = (torch.rand(B, 2) * 2 - 1) * 0.2
    across = torch.stack([angle.cos() * zoom * mirror, -angle.sin() * zoom, shift[:, 0]], dim=1)
    down = torch.stack([angle.sin() * zoom * mirror, angle.cos() * zoom, shift[:, 1]], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1), list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)


def batch_of(
    sources: dict[str, Source], size: int, rng: random.Random, habits: float = 0.0
) -> tuple[torch.Tensor, list[str]]:
    """B pictures in [0, 1] and their captions; some rendered in a style, `habits` of them in a wording of their class."""
    counts = {name: round(size * SHARES[name]) for name in sources}
    counts["drawn"] += size - sum(counts.values())
    images, said, mirrored, drawings, spoken_of = [], [], [], [], []
    for name, source in sources.items():
        for _ in range(counts[name]):
            i, other = rng.randrange(len(source.pictures_NCHW)), rng.randrange(len(source.pictures_NCHW))
            images.append(source.pictures_NCHW[i])
            of = other if rng.random() < WRONG else i
            said.append(source.say(of, rng))
            spoken_of.append(source.names[of] if habits and rng.random() < habits else "")
            mirrored.append(source.may_flip and rng.random() < 0.5)
            drawings.append(source.is_drawing)
    images_BCHW = jitter(torch.stack(images).float() / 255, torch.tensor(mirrored))
    styles = rng.choices(list(STYLE_SHARES), list(STYLE_SHARES.values()), k=len(images))
    for style in dict.fromkeys(s for s in styles if s != "clean"):
        rows = torch.tensor([i for i, s in enumerate(styles) if s == style])
        images_BCHW[rows] = render(images_BCHW[rows], style, rng, rng.uniform(0, 0.6))
    return images_BCHW, [caption(rng, *of) for of in zip(said, styles, drawings, spoken_of, strict=True)]


def encode_captions(model: CLIP, captions: list[str]) -> torch.Tensor:
    """CLIP's encode_text, normalised; B x D. The context is cut after the longest caption's EOT (causal: nothing changes).

    The longest third is encoded separately; otherwise all captions would be padded to its length.
    """
    tokens_BL = clip.tokenize(captions)
    ends_B = tokens_BL.argmax(-1)
    order_B = ends_B.argsort(stable=True)
    short = len(captions) * 2 // 3
    parts = [_encode(model, tokens_BL[rows], ends_B[rows]) for rows in (order_B[:short], order_B[short:])]
    return F.normalize(torch.cat(parts)[order_B.argsort()].float(), dim=-1)


def _encode(model: CLIP, tokens_BL: torch.Tensor, ends_B: torch.Tensor) -> torch.Tensor:
    L = int(ends_B.max()) + 1
    rows_BL = torch.searchsorted(
        model.vocabulary, tokens_BL[:, :L].contiguous()
    )  # the table holds the tokens in use only
    x = (model.token_embedding(rows_BL) + model.positional_embedding[:L]).permute(1, 0, 2)
    for block in model.transformer.resblocks:
        block.attn_mask = torch.full((L, L), -math.inf).triu_(1)
        x = block(x)
    x = model.ln_final(x.permute(1, 0, 2))
    return x[torch.arange(len(x)), ends_B] @ model.text_projection


def contrastive_loss(model: CLIP, images_BCHW: torch.Tensor, captions: list[str]) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        image_BD = F.normalize(model.visual((images_BCHW - MEAN) / STD).float(), dim=-1)
        text_BD = encode_captions(model, captions)
    logits_BB = model.logit_scale.exp().clamp(max=100) * image_BD @ text_BD.T
    own = torch.arange(len(captions))
    return (F.cross_entropy(logits_BB, own) + F.cross_entropy(logits_BB.T, own)) / 2


def new_model(recipe: Recipe, classnames: set[str]) -> CLIP:
    texts = sorted({*all_words(), *classnames})
    in_use = torch.unique(clip.tokenize(texts))
    model = CLIP(recipe.features, SIZE, 3, recipe.width, 4, 77, len(in_use), 128, 2, 4)
    model.register_buffer("vocabulary", in_use)
    return model.train()


def optimisers_of(model: CLIP, muon: bool) -> list[torch.optim.Optimizer]:
    """AdamW; with `muon`, Muon (Jordan et al., 2024) for the matrices inside the image encoder's blocks: it learns faster.

    With Muon the text encoder's attention became all or nothing, so that no context token had a gradient; decay and a
    lower rate for its embeddings keep both as soft as CLIP's.
    """
    parts: dict[str, list[torch.nn.Parameter]] = {"image": [], "text": [], "embeddings": [], "others": []}
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and ".resblocks." in name:
            parts["image" if name.startswith("visual.") else "text"].append(parameter)
        else:
            embeds = name in ("token_embedding.weight", "positional_embedding")
            parts["embeddings" if embeds else "others"].append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parts["text"], "lr": 1e-3, "weight_decay": 0.2},
        {"params": parts["embeddings"], "lr": 5e-4},
        {"params": parts["others"], "lr": 1.5e-3},
    ]
    if not muon:
        groups.append({"params": parts["image"], "lr": 1.5e-3, "weight_decay": 0.2})
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
    return [torch.optim.Muon(parts["image"], lr=0.02, momentum=0.95, weight_decay=0.01), adam] if muon else [adam]


def rate(step: int, steps: int) -> float:
    """Warm-up, then level, then falling to zero over the second half."""
    return min(1.0, (step + 1) / 200, 2 * (steps - step) / steps)


def save(model: CLIP, path: Path) -> None:
    """Writes an OpenAI-style state dict in half precision.

    Tokens that occur in no caption were never trained; their embeddings are stored as zeros, and the archive is deflated,
    which is why 49,408 rows fit into a file this small.
    """
    convert_weights(model)
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    table_VD = torch.zeros(VOCABULARY, state["token_embedding.weight"].shape[1], dtype=torch.float16)
    table_VD[state.pop("vocabulary")] = state["token_embedding.weight"].half()
    state["token_embedding.weight"] = table_VD
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save(state, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        for entry in old.infolist():
            new.writestr(zipfile.ZipInfo(entry.filename), old.read(entry), zipfile.ZIP_DEFLATED, 9)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, packed.getvalue())


def draw_losses(losses: list[float], path: Path) -> None:
    """The mean of every 50 steps, as a figure."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    means = [sum(losses[i : i + 50]) / len(losses[i : i + 50]) for i in range(0, len(losses), 50)]
    axes.plot([50 * (i + 1) for i in range(len(means))], means, color="#0072B2")
    axes.set(xlabel="step", ylabel="loss (nats)", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the small CLIPs that the project ships.")
    parser.add_argument("--recipe", choices=RECIPES, default="first")
    parser.add_argument(
        "--root", type=Path, default=from_project(os.environ.get("DATA"), "data"), help="folder with quickdraw/ and "
        "cifar10/ (default: DATA, or the project's data/)"
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, help="a .pt file; default: the recipe's in assets/, where nothing is changed"
    )
    parser.add_argument("--steps", type=int, help="default: the recipe's")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, help="default: the recipe's")
    args = parser.parse_args()
    recipe = RECIPES[args.recipe]
    usual_out = ROOT / "assets" / recipe.out
    args.out = args.out or usual_out
    args.steps = recipe.steps if args.steps is None else args.steps
    args.seed = recipe.seed if args.seed is None else args.seed
    if args.steps < 1 or args.batch < 4:
        raise SystemExit(f"error: {args.steps} steps of {args.batch} pictures: use at least one step and four pictures")
    if args.out.suffix != ".pt" or args.out.is_dir():
        raise SystemExit(f"error: --out {args.out} is no name for a .pt file")
    is_changed = (args.steps, args.batch, args.seed) != (recipe.steps, 256, recipe.seed)
    if is_changed and args.out.resolve() == usual_out.resolve():
        raise SystemExit(f"error: {usual_out} is the recipe's own: give another model another --out")
    if recipe.muon and not hasattr(torch.optim, "Muon"):
        raise SystemExit(f"error: this recipe uses Muon, which torch {torch.__version__} lacks: use 2.9 or later")
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("error: the figure of the losses needs the package matplotlib: pip install matplotlib")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sources = {name: folder_source(name, args.root) for name in ("quickdraw", "cifar10")}
    classnames = {name for source in sources.values() for name in source.names}
    sources["drawn"] = drawn_source(args.seed)
    digest = hashlib.sha256()
    for source in sources.values():
        digest.update(source.pictures_NCHW.numpy().tobytes())
    pictures = digest.hexdigest()[:16]
    told = {"recipe": args.recipe, "steps": args.steps, "batch": args.batch, "seed": args.seed, "pictures": pictures}
    torch.manual_seed(args.seed)
    model = new_model(recipe, classnames)
    optimisers = optimisers_of(model, recipe.muon)
    usual = [[group["lr"] for group in o.param_groups] for o in optimisers]
    kept = args.out.with_suffix(".unfinished")
    losses: list[float] = []
    if kept.exists():
        found: dict[str, Any] = torch.load(kept, weights_only=True)
        if found["told"] != told:
            raise SystemExit(f"error: {kept} was begun with {found['told']}, this is {told}: remove it to begin anew")
        model.load_state_dict(found["model"])
        for optimiser, state in zip(optimisers, found["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        losses = found["losses"]
    begin, first = time.monotonic(), len(losses)
    for step in tqdm(range(first, args.steps), initial=first, total=args.steps, mininterval=30):
        rng = random.Random(f"{args.seed} {step}")  # a step does not depend on where training was resumed
        torch.manual_seed(rng.randrange(2**62))
        for optimiser, rates in zip(optimisers, usual, strict=True):
            for group, lr in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = lr * rate(step, args.steps)
        loss = contrastive_loss(model, *batch_of(sources, args.batch, rng, recipe.habits))
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        losses.append(float(loss.detach()))
        if (step + 1) % 250 == 0:
            states = [o.state_dict() for o in optimisers]
            state = {"told": told, "model": model.state_dict(), "optimisers": states, "losses": losses}
            buffer = io.BytesIO()
            torch.save(state, buffer)
            write_atomically(kept, buffer.getvalue())
            tqdm.write(
                f"{step + 1}: loss {sum(losses[-250:]) / 250:.3f}, {model.logit_scale.exp().item():.1f} the scale"
            )
    save(model.eval(), args.out)
    draw_losses(losses, args.out.with_suffix(".png"))
    kept.unlink(missing_ok=True)
    print(f"Wrote {args.out} ({os.path.getsize(args.out) / 2**20:.1f} MB)")
    print(f"{len(losses) - first} steps in {(time.monotonic() - begin) / 60:.0f} minutes")
    return 0
