"""Groups a list of hard templates by what a CLIP makes of them: a group for each of MoCoOp's soft prompts.

    python scripts/group_templates.py clip80 demo --backbone small --out groups.yaml
    bash scripts/mocoop/main.sh demo 16 DATASET.TEMPLATE_GROUPS groups.yaml

The list is a .txt file with a template a line, a .yaml file with a list, or the name of one in configs/templates (clip80,
lasp). The class names that templates are filled with are those of a dataset, a folder of pictures or a list of pictures.
Templates are grouped by k-means on their text features; without --groups, the number of groups is that of the largest mean
silhouette. Each group begins with the template in its middle, from which the soft prompt starts. --control writes groups
that know nothing of the text, to compare with.
"""

import argparse
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path

import torch
import yaml
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_samples
from tabulate import tabulate

from harness.near_duplicates import backbone_of
from harness.plan import dataset_of
from trainers.core.clip.backbones import Backbone
from trainers.core.clip.hard_features import hard_features
from trainers.core.clip.prompts import alike, hard_plan
from trainers.core.clip.text_tower import TextEncoder
from trainers.core.runs.files import printable, write_for_user
from trainers.core.settings.errors import did_you_mean, one_line
from trainers.core.settings.text_files import read_text, read_yaml
from trainers.paths import ROOT

LISTS = ("clip80", "lasp")  # of configs/templates
NAMES = 100  # class names that templates are filled with, at most
MOST = 12  # groups that are tried, at most
WORDS = "a photo of a {{}}, which has {} {}."  # WaffleCLIP's (Roth et al., ICCV 2023), with words of the vocabulary
CONTROLS = {
    "random": "as many of the same sizes, drawn",
    "one": "all templates in one group",
    "each": "each template alone",
    "words": "as many of the same sizes, of random words in the place of templates (WaffleCLIP)",
}


def read_templates(given: str) -> list[str]:
    """The templates of a file, one after the other. Raises ValueError or OSError, in one line."""
    own = {name: ROOT / "configs" / "templates" / f"{name}.yaml" for name in LISTS}
    path = Path(given)
    if not path.exists() and given not in own:
        raise ValueError(f'no list of templates "{given}"{did_you_mean(given, own)} Known: {", ".join(sorted(own))}')
    path = path if path.exists() else own[given]
    if path.suffix.lower() not in (".yaml", ".yml"):
        lines = [line.strip() for line in read_text(path).splitlines()]
        return [line for line in lines if line and not line.startswith("#")]
    found = read_yaml(path)
    if isinstance(found, dict) and len(found) == 1:
        (found,) = found.values()
    flat = (
        [t for group in found for t in (group if isinstance(group, list) else [group])]
        if isinstance(found, list)
        else []
    )
    if not flat or not all(isinstance(template, str) for template in flat):
        raise ValueError(f"{path} is no list of templates: expected lines like - a photo of a {{}}.")
    return flat


def usable(templates: Sequence[str], names: Sequence[str], backbone: Backbone) -> tuple[list[str], dict[str, str]]:
    """The templates that can be used, and why each other one cannot."""
    kept, faults = [], {}
    for template in templates:
        if template in kept:
            faults[template] = "stands twice"
        elif template.count("{}") != 1:
            faults[template] = f"has {template.count('{}')} places {{}} for the class name"
        else:
            try:
                hard_plan([template], names, backbone.vocabulary)
                kept.append(template)
            except ValueError as error:
                faults[template] = one_line(error)
    filled = {template.replace("{}", names[0]): template for template in kept}
    for first, *others in alike(list(filled), backbone):
        for other in others:
            faults[filled[other]] = f'is the same to this CLIP as "{filled[first]}"'
    return [template for template in kept if template not in faults or faults[template] == "stands twice"], faults


@torch.no_grad()
def coordinates(templates: Sequence[str], names: Sequence[str], backbone: Backbone) -> torch.Tensor:
    """T points of T numbers whose distances are those of the templates' features for all classes together; T x T.

    ||x_t - x_u||^2 = mean over classes c of ||h_tc - h_uc||^2.
    """
    hard_TCD = hard_features(TextEncoder(backbone), templates, names, backbone.vocabulary).double()
    all_TK = (hard_TCD - hard_TCD.mean(0)).flatten(1) / len(names) ** 0.5
    values_T, vectors_TT = torch.linalg.eigh(all_TK @ all_TK.T)
    return vectors_TT * values_T.clamp(min=0).sqrt()


@dataclass(frozen=True)
class Groups:
    """Templates in groups, and how well they hang together; T templates, G groups."""

    templates: list[list[str]]
    silhouettes: list[list[float]]  # of each template, from -1 to 1
    tried: dict[int, float]  # mean silhouette by number of groups


def grouped(templates: Sequence[str], points_TT: torch.Tensor, number: int | None, seed: int) -> Groups:
    """k-means for `number` groups, or for that number of the largest mean silhouette.

    Groups come in the order of their first templates, templates in that of their distance to the group's middle.
    Raises ValueError for a number of groups that cannot be.
    """
    T = len(templates)
    if number is not None and not 1 <= number <= T:
        raise ValueError(f"--groups is {number}: use 1 to {T}, the usable templates")
    if number is None and T < 3:
        raise ValueError(f"{T} usable templates are too few to choose a number of groups: give --groups")
    points = points_TT.numpy()
    labels = {
        k: KMeans(k, n_init=20, random_state=seed).fit_predict(points)
        for k in ([number] if number else range(2, min(T - 1, MOST) + 1))
    }
    silhouettes = {k: silhouette_samples(points, label_T) if 1 < k < T else [0.0] * T for k, label_T in labels.items()}
    tried = {k: float(sum(values) / T) for k, values in silhouettes.items()}
    best = max(tried, key=lambda k: tried[k])
    members = [[t for t in range(T) if labels[best][t] == g] for g in dict.fromkeys(labels[best])]
    ordered = [[ts[i] for i in _from_the_middle(points_TT[ts])] for ts in members]
    return Groups(
        [[templates[t] for t in ts] for ts in ordered],
        [[float(silhouettes[best][t]) for t in ts] for ts in ordered],
        tried,
    )


def _from_the_middle(points_NT: torch.Tensor) -> list[int]:
    return (points_NT - points_NT.mean(0)).norm(dim=1).argsort(stable=True).tolist()


def random_words(number: int, backbone: Backbone, rng: random.Random) -> list[str]:
    """Templates with two random words each: whole words of the vocabulary that the model has learned to read."""
    written = backbone.vocabulary.words(list(range(backbone.token_embedding.weight.shape[0])))
    words = [word.removesuffix("</w>") for word in written]
    long = [
        w for w, text in zip(words, written, strict=True) if w.isascii() and w.isalpha() and len(w) > 2 and w != text
    ]
    read = [word for word in long or words if word.isalpha() and not backbone.unread(word)]
    return [WORDS.format(*rng.sample(read, 2)) for _ in range(number)]


def control(kind: str, groups: list[list[str]], backbone: Backbone, seed: int) -> list[list[str]]:
    """Groups that know nothing of the text."""
    rng, flat = random.Random(seed), [template for group in groups for template in group]
    if kind == "one":
        return [flat]
    if kind == "each":
        return [[template] for template in flat]
    drawn = iter(random_words(len(flat), backbone, rng) if kind == "words" else rng.sample(flat, len(flat)))
    return [[next(drawn) for _ in group] for group in groups]


def drawing(groups: Groups, points_TT: torch.Tensor, order: list[int]) -> Figure:
    """How alike the templates are, group by group, and the silhouettes by number of groups where it was chosen."""
    T = len(order)
    side = 0.17 * T + 3
    figure = Figure(figsize=(side + 1, side + (2 if len(groups.tried) > 1 else 0)), layout="constrained")
    rows = figure.subplots(2, 1, height_ratios=[side, 1.6]) if len(groups.tried) > 1 else [figure.subplots()]
    unit_TT = torch.nn.functional.normalize(points_TT[order], dim=1)
    image = rows[0].imshow((unit_TT @ unit_TT.T).numpy(), cmap="RdGy_r", vmin=-1, vmax=1)
    edges, templates = [0], [template for group in groups.templates for template in group]
    for group in groups.templates:
        start, edges = edges[-1], [*edges, edges[-1] + len(group)]
        corner = (start - 0.5, start - 0.5)
        rows[0].add_patch(Rectangle(corner, len(group), len(group), fill=False, edgecolor="black", linewidth=1.5))
    rows[0].set_yticks(range(T), templates, fontsize=7)
    rows[0].set_xticks([(a + b - 1) / 2 for a, b in pairwise(edges)], [str(g) for g in range(len(groups.templates))])
    rows[0].set_xlabel("group")
    figure.colorbar(image, ax=rows[0], label="cosine of features less their mean", shrink=0.6)
    if len(rows) > 1:
        rows[1].plot(list(groups.tried), list(groups.tried.values()), "k.-")
        rows[1].set(xlabel="number of groups", ylabel="mean silhouette", xticks=list(groups.tried))
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("templates", help="a .txt or .yaml file, or clip80, lasp")
    parser.add_argument(
        "pictures", help="whose class names: a dataset's name, a folder, or a list (.csv, .tsv, .jsonl)"
    )
    parser.add_argument("--backbone", default="ViT-B/16", help="whose features: a CLIP's name or file, or small")
    parser.add_argument("--groups", type=int, metavar="G", help="how many (chosen by the mean silhouette)")
    kinds = "; ".join(f"{kind}: {what}" for kind, what in CONTROLS.items())
    parser.add_argument("--control", choices=CONTROLS, help=kinds)
    parser.add_argument("--seed", type=int, default=1, help="of k-means and of what is drawn (1)")
    parser.add_argument("--data", default=os.environ.get("DATA"), help="folder of the datasets (DATA)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the groups there, .yaml")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw them there, .png, .pdf or .svg")
    args = parser.parse_args()
    try:
        check_outputs(args)
        templates = read_templates(args.templates)
        names = dataset_of(args.pictures, args.data).classnames
        names = names[:: -(-len(names) // NAMES)]
        backbone = backbone_of(args.backbone)
        kept, faults = usable(templates, names, backbone)
        for template, fault in faults.items():
            print(f'left out: "{printable(template)}" {printable(fault)}')
        if not kept:
            raise ValueError(f"{args.templates} has no usable template: each needs one {{}} for the class name")
        points_TT = coordinates(kept, names, backbone)
        found = grouped(kept, points_TT, args.groups, args.seed)
        made = control(args.control, found.templates, backbone, args.seed) if args.control else found.templates
        if args.out:
            write_for_user(args.out, as_yaml(made, args))
        if args.draw:
            order = [kept.index(template) for group in found.templates for template in group]
            drawing(found, points_TT, order).savefig(args.draw, dpi=150)
    except (OSError, ValueError) as error:
        print(f"error: {printable(one_line(error))}", file=sys.stderr)
        return 2
    print(
        f"{len(kept)} of {len(templates)} templates, filled with {len(names)} class names, in {len(found.templates)} groups"
    )
    if len(found.tried) > 1:
        print(
            "Mean silhouette by number of groups: " + ", ".join(f"{k} {value:.3f}" for k, value in found.tried.items())
        )
    if args.control:
        print(f"Control, {args.control}: {CONTROLS[args.control]}")
    middling = ["" if args.control else f"{sum(values) / len(values):.2f}" for values in found.silhouettes]
    rows = [
        (g, len(group), s, " | ".join(group)) for g, (group, s) in enumerate(zip_longest(made, middling, fillvalue=""))
    ]
    print(tabulate(rows, ["group", "templates", "silhouette", ""], maxcolwidths=[None, None, None, 90]))
    return 0


def check_outputs(args: argparse.Namespace) -> None:
    """Raises ValueError for files that cannot be written, or that are read."""
    for option, path, kinds in (
        ("--out", args.out, (".yaml", ".yml")),
        ("--draw", args.draw, (".png", ".pdf", ".svg")),
    ):
        if path is None:
            continue
        if path.suffix.lower() not in kinds or path.is_dir() or not path.absolute().parent.is_dir():
            raise ValueError(
                f"{option} {path} cannot be written: name a {', '.join(kinds)} file in a folder that is there"
            )
        if path.resolve() in {Path(given).resolve() for given in (args.templates, args.pictures)}:
            raise ValueError(f"{option} {path} would be overwritten: name another file")


def as_yaml(groups: list[list[str]], args: argparse.Namespace) -> str:
    """The file of groups, with how it was made."""
    how = f"control {args.control}" if args.control else "k-means on text features"
    about = f"# Template groups: {args.templates} for {args.pictures}, {args.backbone}, {how}, seed {args.seed}.\n"
    return about + yaml.safe_dump(groups, allow_unicode=True, width=1000)
