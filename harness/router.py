"""Shows which experts a trained MoCoOp uses for which pictures: a table, a heat map, and each expert's top pictures.

    python scripts/inspect_router.py output/.../MoCoOp/small/seed1                     on its own dataset
    python scripts/inspect_router.py output/.../MoCoOp/small/seed1 --dataset cifar10   on another one

Writes router.json, router.png and .pdf (share of each domain's or class's pictures per expert) and contact_sheet.png (the
pictures that the router gives to each expert most surely) into the run's folder (for another dataset, into
router_<dataset> below it); parse_results.py --plots draws from router.json.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from tabulate import tabulate, tabulate_formats
from torch.utils.data import DataLoader
from yacs.config import CfgNode

import datasets
from harness.catalog import existing
from harness.report import left_by_runs, plots
from trainers.core.inference.model import opened_backbone, refuse_part
from trainers.core.loading.loaders import Pictures, follow_backbone, test_transform
from trainers.core.loading.read import read_picture
from trainers.core.runs.files import write_atomically
from trainers.core.settings.configure import default_cfg
from trainers.core.settings.errors import one_line
from trainers.core.settings.templates import from_template_file
from trainers.core.training import checkpoints
from trainers.methods import methods
from trainers.mocoop.trainer import MixtureCLIP, MixtureOptions
from trainers.paths import ROOT


@dataclass
class Routing:
    """What a router does with the N test pictures of a dataset; G experts."""

    weights_NG: np.ndarray  # mixture weights
    probability_NG: np.ndarray  # softmax of all router logits
    target_N: np.ndarray  # the hard prompts' first choice for the true class
    domain_N: np.ndarray
    label_N: np.ndarray
    paths: list[str]
    experts: list[str]
    domains: list[str]
    classnames: list[str]
    one_for_each_domain: bool  # the experts, in the domains' order
    upright: bool  # pictures are turned as EXIF says

    @property
    def first_N(self) -> np.ndarray:
        return self.probability_NG.argmax(1)

    def shares(self, by: str) -> tuple[np.ndarray, list[str]]:
        """Percent of each domain's or class's pictures whose first expert is each one (R x G), and the rows' names."""
        group_N, names = (self.domain_N, self.domains) if by == "domain" else (self.label_N, self.classnames)
        present = np.unique(group_N)
        G = len(self.experts)
        counts = [np.bincount(self.first_N[group_N == r], minlength=G) for r in present]
        return 100 * np.array([c / c.sum() for c in counts]), [names[r] for r in present]

    def summary(self) -> dict[str, float]:
        """Mean entropy of the mixture weights in nats and its maximum; agreement in percent."""
        safe = np.where(self.weights_NG > 0, self.weights_NG, 1)
        found = {
            "entropy": float(-(self.weights_NG * np.log(safe)).sum(1).mean()),
            "entropy_at_most": float(np.log((self.weights_NG > 0).sum(1).max())),
            "agrees_with_hard_prompts": 100 * float((self.first_N == self.target_N).mean()),
        }
        if self.one_for_each_domain:
            found["agrees_with_domain"] = 100 * float((self.first_N == self.domain_N).mean())
        return found


def route(model_dir: Path, dataset: str | None, root: str | None, given: str = "") -> Routing:
    """Sends the test pictures of `dataset`, or of the run's own, through the router of the run in `model_dir`.
    given: the backbone's name or file, where it lies elsewhere now.

    Raises ValueError or FileNotFoundError, in one line, if there is no trained MoCoOp in `model_dir`.
    """
    from dassl.data.datasets import build_dataset  # dassl is found once trainers is imported

    path = checkpoints.model_file(model_dir)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint in {model_dir}: give the folder of a trained run")
    state = checkpoints.load(path)
    identity = state.get("identity", {})
    method = methods().get(identity.get("trainer", ""))
    if method is None or method.model != MixtureCLIP.__name__:
        raise ValueError(f"{path} is no MoCoOp but {identity.get('trainer', 'something else')}: it has no router")
    refuse_part(state, path)
    cfg = configuration(state["config"], dataset, root)
    data = build_dataset(cfg)
    options = method.options.of(cfg.TRAINER[method.options.KEY]).keywords(MixtureOptions)
    backbone = opened_backbone(given, identity)
    model = MixtureCLIP(backbone, data.classnames, identity["template_groups"], **options)
    prompts = {name: tensor for name, tensor in state["state_dict"].items() if not name.startswith("head.")}
    checkpoints.copy_into(model.trainable(), prompts, path)
    model.eval()
    pictures = Pictures(cfg, data.test, transform=test_transform(cfg))
    loader = DataLoader(pictures, batch_size=200)
    weights, probabilities, targets = [], [], []
    with torch.no_grad():
        for batch in loader:
            image_BD = model.image_features(pictures.as_numbers(batch["img"]))
            router_BG, weights_BG = model.route(image_BD)
            weights.append(weights_BG)
            probabilities.append(router_BG.softmax(1))
            targets.append(model.gate_similarity(image_BD, batch["label"]).argmax(1))
    return Routing(
        weights_NG=torch.cat(weights).numpy(),
        probability_NG=torch.cat(probabilities).numpy(),
        target_N=torch.cat(targets).numpy(),
        domain_N=np.array([item.domain for item in data.test]),
        label_N=np.array([item.label for item in data.test]),
        paths=[item.impath for item in data.test],
        experts=[group[0] for group in identity["template_groups"]],
        domains=list(getattr(data, "domains", None) or ["all pictures"]),
        classnames=data.classnames,
        one_for_each_domain=cfg.DATASET.NAME == "StyledThings"
        and identity["template_groups"] == from_template_file("template_groups.yaml", "StyledThings"),
        upright=pictures.upright,
    )


def configuration(saved: str, dataset: str | None, root: str | None) -> CfgNode:
    """A run's configuration (yaml), with another dataset or another place of the data in it if they are given."""
    datasets.register_all()
    cfg = default_cfg()
    cfg.merge_from_other_cfg(type(cfg).load_cfg(saved))
    if dataset:
        cfg.merge_from_file(str(ROOT / existing(f"configs/datasets/{dataset}.yaml")))
        cfg.DATASET.SOURCE_DOMAINS = cfg.DATASET.TARGET_DOMAINS = ()
        cfg.DATASET.SUBSAMPLE_CLASSES = "all"
    if root or not Path(cfg.DATASET.ROOT).is_dir():  # a relative one is of the project's folder
        cfg.DATASET.ROOT = root or str(ROOT / cfg.DATASET.ROOT)
    cfg.VERBOSE = False
    follow_backbone(cfg)
    return cfg


def contact_sheet(routing: Routing, across: int) -> Figure:
    """A row per expert: the pictures to which the router gives it the highest probability."""
    G = len(routing.experts)
    figure = Figure(figsize=(1.1 * across + 0.2, 1.42 * G + 0.2), layout="constrained")
    rows = figure.subfigures(G, 1, squeeze=False)[:, 0]
    for g, row in enumerate(rows):
        row.suptitle(f"{g}: {routing.experts[g]}", x=0.02, ha="left", fontsize=9)
        best = np.argsort(-routing.probability_NG[:, g], kind="stable")[:across]
        for axes, n in zip(row.subplots(1, across, squeeze=False)[0], best, strict=False):
            picture = read_picture(routing.paths[n], routing.upright)
            picture.thumbnail((300, 300))
            axes.imshow(picture)
            axes.set_axis_off()
            name = routing.classnames[routing.label_N[n]]
            axes.set_title(f"{name} {routing.probability_NG[n, g]:.2f}", fontsize=6, pad=2)
    return figure


def positive(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: use a whole number from 1 on")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, help="folder of a trained run")
    parser.add_argument("--dataset", help="config name of the dataset to look at (the run's own)")
    parser.add_argument("--root", help="folder of the datasets (where the run had them)")
    parser.add_argument("--by", choices=("domain", "class"), help="rows: domains where there are several, else classes")
    parser.add_argument("--out", type=Path, help="folder for the files (the run's own)")
    parser.add_argument("--across", type=positive, default=8, help="pictures per expert on the contact sheet")
    parser.add_argument("--format", default="simple", choices=tabulate_formats, metavar="FORMAT", help="of tabulate")
    parser.add_argument("--backbone", default="", help="the backbone's file, where it lies elsewhere now")
    args = parser.parse_args()
    folder = args.out or (args.model_dir / f"router_{args.dataset}" if args.dataset else args.model_dir)
    try:
        routing = route(args.model_dir, args.dataset, args.root, args.backbone)
        by = args.by or ("domain" if len(routing.domains) > 1 else "class")
        write_files(routing, by, folder, args.across)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    percent_RG, names = routing.shares(by)
    shown = [[n, *(f"{s:.0f}" if s >= 0.5 else "." for s in row)] for n, row in zip(names, percent_RG, strict=True)]
    print(f"Percent of the test pictures of each {by} (rows) whose first expert is each soft prompt (columns):\n")
    headers = ["", *range(len(routing.experts))]
    print(tabulate(shown, headers=headers, tablefmt=args.format, stralign="right", disable_numparse=True))
    print()
    for g, expert in enumerate(routing.experts):
        print(f"{g}: {expert}")
    found = routing.summary()
    print(
        f"\nMean entropy of the mixture weights: {found['entropy']:.2f} nats (at most {found['entropy_at_most']:.2f})"
    )
    print(
        f"First expert is the hard prompts' first choice for the true class: {found['agrees_with_hard_prompts']:.1f} %"
    )
    if "agrees_with_domain" in found:
        print(f"First expert is the one of the picture's own domain: {found['agrees_with_domain']:.1f} %")
    print(f"\nWritten into {folder}: router.json, router.png, router.pdf, contact_sheet.png")
    return 0


def write_files(routing: Routing, by: str, folder: Path, across: int) -> None:
    percent_RG, names = routing.shares(by)
    record = {"by": by, "rows": names, "experts": routing.experts, "percent": percent_RG.tolist(), **routing.summary()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "router.json", json.dumps(record, indent=1).encode())
    plots.save([("router", left_by_runs.heat_map(percent_RG, names, routing.experts))], folder)
    contact_sheet(routing, across).savefig(folder / "contact_sheet.png", dpi=150)
