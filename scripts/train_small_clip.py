"""Trains the small CLIP in assets/: a real CLIP, small enough to ship, for people without CLIP's weights or a GPU.

It reads coloured shapes drawn on the fly and the "pretrain" part of Quick, Draw! and CIFAR-10, which no benchmark here
ever shows to a few-shot learner. Every picture is rendered in a style, and its caption is one of CLIP's templates that
names that style, filled with the class name. A step takes some classes and styles of each source and asks, for each
picture, which of the captions is its own: which class among captions of its style, and which style among captions of
its class (cross-entropy both, temperature learned as in CLIP, Radford et al., 2021).

    python scripts/prepare_data.py quickdraw cifar10
    python scripts/train_small_clip.py --steps 20000 --minutes 42

Shapes: B pictures, C classes, S styles, L tokens, D features, H x W pixels.
"""

import argparse
import io
import json
import math
import random
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clip
import torch
from clip.model import CLIP, convert_weights
from PIL import Image
from torch.nn import functional as F
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent

from datasets.drawing import CLASSNAMES, STYLES, draw_shape, render, to_tensor  # noqa: E402

SIZE = 32
VOCABULARY = 49408  # of CLIP's tokeniser
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


@dataclass
class Source:
    """Pictures of one kind and how many of them a step looks at."""

    name: str
    classnames: list[str]
    pictures_NCHW: torch.Tensor  # uint8
    labels_N: torch.Tensor
    batch: int
    classes_per_step: int
    styles_per_step: int
    flip: float
    clean_templates: list[str]
    maximal_strength: float

    def __post_init__(self) -> None:
        self.by_class = [torch.nonzero(self.labels_N == c)[:, 0] for c in range(len(self.classnames))]

    def templates(self, style: str) -> list[str]:
        return self.clean_templates if style == "clean" else STYLES[style][1]


def shapes_source(seed: int, per_class: int = 60) -> Source:
    rng = random.Random(f"pretrain {seed}")
    pictures, labels = [], []
    for label, name in enumerate(CLASSNAMES):
        for _ in range(per_class):
            pictures.append((to_tensor(draw_shape(name, rng, SIZE)) * 255).round().to(torch.uint8))
            labels.append(label)
    return Source("demo", CLASSNAMES, torch.stack(pictures), torch.tensor(labels), 64, 16, 5, 0.5,
                  [*STYLES["clean"][1], "a photo of the {}."], 0.6)  # fmt: skip


def folder_source(name: str, root: Path, part: str = "pretrain", **kwargs: Any) -> Source:
    folder = root / name
    if not (folder / f"split_{name}.json").is_file():
        raise SystemExit(f"{folder} is missing: python scripts/prepare_data.py {name} --root {root}")
    items = json.loads((folder / f"split_{name}.json").read_text())[part]
    names = [c.replace("_", " ") for _, c in sorted({(y, c) for _, y, c in items})]
    pictures = torch.stack(
        [
            (to_tensor(Image.open(folder / "images" / p).convert("RGB").resize((SIZE, SIZE))) * 255).to(torch.uint8)
            for p, _, _ in tqdm(items, desc=f"Reading {name}", mininterval=5)
        ]
    )
    return Source(name, names, pictures, torch.tensor([y for _, y, _ in items]), **kwargs)


def jitter(images_BCHW: torch.Tensor, flip: float, turn: float) -> torch.Tensor:
    """Flips, turns, scales and shifts each picture by its own random amount."""
    B = len(images_BCHW)
    angle = (torch.rand(B) * 2 - 1) * math.radians(turn)
    zoom = 1 + (torch.rand(B) * 2 - 1) * 0.15
    mirror = 1 - 2.0 * (torch.rand(B) < flip)
    shift = (torch.rand(B, 2) * 2 - 1) * 0.2
    rows = torch.stack(
        [
            torch.stack([angle.cos() * zoom * mirror, -angle.sin() * zoom, shift[:, 0]], dim=1),
            torch.stack([angle.sin() * zoom * mirror, angle.cos() * zoom, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(rows, list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)


def encode_captions(model: CLIP, captions: list[str]) -> torch.Tensor:
    """CLIP's encode_text, the context cut after the longest caption's EOT (causal, so nothing changes)."""
    tokens_BL = clip.tokenize(captions)
    L = int(tokens_BL.argmax(-1).max()) + 1
    tokens_BL = tokens_BL[:, :L]
    rows_BL = torch.searchsorted(model.vocabulary, tokens_BL)  # the table holds only the tokens in use
    x = model.token_embedding(rows_BL) + model.positional_embedding[:L]
    x = x.permute(1, 0, 2)
    for block in model.transformer.resblocks:
        block.attn_mask = torch.full((L, L), -math.inf).triu_(1)
        x = block(x)
    x = model.ln_final(x.permute(1, 0, 2))
    return F.normalize(x[torch.arange(len(x)), tokens_BL.argmax(-1)] @ model.text_projection, dim=-1)


def draw_batch(source: Source, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
    """Some pictures of a source: images_BCHW in [0, 1], class_B, style_B, and the S x C captions, style by style."""
    classes = rng.sample(range(len(source.classnames)), source.classes_per_step)
    styles = rng.sample(list(STYLES), source.styles_per_step)
    if "clean" not in styles:  # what most templates say, hence in every step
        styles[0] = "clean"
    images, class_of, style_of = [], [], []
    for s, style in enumerate(styles):
        share = source.batch // len(styles)
        picked = [rng.randrange(len(classes)) for _ in range(share)]
        rows = [source.by_class[classes[c]][rng.randrange(len(source.by_class[classes[c]]))] for c in picked]
        x = source.pictures_NCHW[torch.stack(rows)].float() / 255.0
        x = jitter(x, source.flip, 12)
        images.append(render(x, style, rng, rng.uniform(0, source.maximal_strength)))
        class_of += picked
        style_of += [s] * share
    captions = [rng.choice(source.templates(s)).format(source.classnames[c]) for s in styles for c in classes]
    return torch.cat(images), torch.tensor(class_of), torch.tensor(style_of), captions


def step_loss(model: CLIP, sources: list[Source], rng: random.Random) -> tuple[torch.Tensor, dict[str, float]]:
    batches = [draw_batch(s, rng) for s in sources]
    image_BD = model.visual((torch.cat([b[0] for b in batches]) - MEAN) / STD)
    image_BD = F.normalize(image_BD, dim=-1)
    text_TD = encode_captions(model, [c for b in batches for c in b[3]])
    scale = model.logit_scale.exp().clamp(max=100)
    loss, seen, first_image, first_text = torch.zeros(()), {}, 0, 0
    for source, (images, class_B, style_B, captions) in zip(sources, batches, strict=True):
        f_BD = image_BD[first_image : first_image + len(images)]
        w_TD = text_TD[first_text : first_text + len(captions)]
        logits_BSC = (scale * f_BD @ w_TD.T).view(len(images), -1, source.classes_per_step)
        rows = torch.arange(len(images))
        by_class_BC, by_style_BS = logits_BSC[rows, style_B], logits_BSC[rows, :, class_B]
        loss = loss + F.cross_entropy(by_class_BC, class_B) + 0.3 * F.cross_entropy(by_style_BS, style_B)
        seen[source.name] = float((by_class_BC.argmax(-1) == class_B).float().mean())
        first_image, first_text = first_image + len(images), first_text + len(captions)
    return loss / len(sources), seen


@torch.no_grad()
def zero_shot_accuracy(model: CLIP, source: Source) -> float:
    """Accuracy in percent, clean pictures, one template."""
    text_CD = encode_captions(model, [source.templates("clean")[0].format(c) for c in source.classnames])
    hits = 0
    for rows in torch.arange(len(source.labels_N)).split(500):
        x = (source.pictures_NCHW[rows].float() / 255.0 - MEAN) / STD
        hits += int(((model.visual(x) @ text_CD.T).argmax(-1) == source.labels_N[rows]).sum())
    return 100.0 * hits / len(source.labels_N)


def save(model: CLIP, path: Path) -> None:
    """Writes an OpenAI-style state dict in half precision.

    Tokens that occur in no caption were never trained; their embeddings are stored as zeros, and the archive is
    deflated, which is why 49,408 rows fit into a file this small.
    """
    convert_weights(model)
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    table_VD = torch.zeros(VOCABULARY, state["token_embedding.weight"].shape[1], dtype=torch.float16)
    table_VD[state.pop("vocabulary")] = state["token_embedding.weight"].half()
    state["token_embedding.weight"] = table_VD
    plain = io.BytesIO()
    torch.save(state, plain)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        for entry in old.infolist():
            new.writestr(zipfile.ZipInfo(entry.filename), old.read(entry), zipfile.ZIP_DEFLATED, 9)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small CLIP that the project ships.")
    parser.add_argument("--root", type=Path, default=ROOT / "data", help="folder with quickdraw/ and cifar10/")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "small_clip.pt")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="shorten the schedule to about this long")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    sketch = [
        "a sketch of a {}.",
        "a sketch of the {}.",
        "a drawing of a {}.",
        "a photo of a {}.",
        "a photo of the {}.",
    ]
    photo = [*STYLES["clean"][1], "a photo of the {}.", "a photo of the clean {}."]
    sketches: dict[str, Any] = {
        "batch": 96,
        "classes_per_step": 64,
        "styles_per_step": 2,
        "flip": 0.5,
        "clean_templates": sketch,
    }
    photos: dict[str, Any] = {
        "batch": 96,
        "classes_per_step": 10,
        "styles_per_step": 4,
        "flip": 0.5,
        "clean_templates": photo,
    }
    sources = [
        shapes_source(args.seed),
        folder_source("quickdraw", args.root, maximal_strength=0.6, **sketches),
        folder_source("cifar10", args.root, maximal_strength=0.6, **photos),
    ]
    templates = {t for s in sources for style in STYLES for t in s.templates(style)}
    in_use = torch.unique(clip.tokenize([t.format(c) for s in sources for c in s.classnames for t in templates]))
    model = CLIP(128, SIZE, 4, 128, 8, 77, len(in_use), 128, 2, 3)
    model.register_buffer("vocabulary", in_use)
    model.train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=args.lr,
        betas=(0.9, 0.98),
    )
    warm_up, begin, done = 200, time.monotonic(), 0.0
    bar = tqdm(total=args.steps, mininterval=10)
    running: dict[str, float] = {}
    step = 0
    while done < 1:  # `done` is the part of the schedule that is over, by steps or by the clock
        rate = min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = args.lr * rate
        loss, seen = step_loss(model, sources, rng)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        running = {k: 0.98 * running.get(k, v) + 0.02 * v for k, v in {**seen, "loss": float(loss.detach())}.items()}
        bar.update()
        if step % 50 == 0:
            bar.set_postfix({k: f"{v:.3f}" for k, v in running.items()})
        done = max(step / args.steps, (time.monotonic() - begin) / 60 / args.minutes)
    bar.close()
    minutes = (time.monotonic() - begin) / 60
    model.eval()
    print(f"{step} steps in {minutes:.1f} minutes, logit scale {float(model.logit_scale.exp()):.1f}")
    for source in sources[1:]:
        held_out = folder_source(source.name, args.root, "val", maximal_strength=0.0,
                                 **(sketches if source.name == "quickdraw" else photos))  # fmt: skip
        print(f"{source.name}: {zero_shot_accuracy(model, held_out):.1f} % on the validation part, zero-shot")
    save(model, args.out)
    print(f"Wrote {args.out} ({args.out.stat().st_size / 2**20:.1f} MB)")


if __name__ == "__main__":
    main()
