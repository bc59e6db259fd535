"""Test pictures that are nearly the same as a training or validation picture, by the features of a CLIP.

    python scripts/near_duplicates.py path/to/pictures --backbone small
    python scripts/near_duplicates.py photos.csv --above 0.9 --csv pairs.csv

Every run compares the files' contents; this finds what was saved again, cropped or turned a little, and what was taken in
one series. Which similarity means "the same" depends on the pictures: look at the pairs.
Exit status: 0 done, 1 some pictures could not be read (they are named, and the others compared), 2 nothing was compared.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from tabulate import tabulate
from tqdm import tqdm

from harness.plan import dataset_of
from trainers.core.clip.backbones import Backbone, load_backbone
from trainers.core.clip.visual_tower import encode_pictures
from trainers.core.loading.read import UNDECODABLE, read_named
from trainers.core.runs.files import csv_of, printable, write_for_user
from trainers.core.settings.errors import one_line
from trainers.paths import ROOT

SMALL = ROOT / "assets" / "drawn_clip.pt"
BATCH = 32
SHOWN = 20


def backbone_of(word: str) -> Backbone:
    """A CLIP's name or file, or small for the one that the project ships."""
    return load_backbone(str(SMALL) if word == "small" else word)


def features(paths: list[str], backbone: Backbone) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The unit feature, D, of each picture that can be read, and what is wrong with each other."""
    found: dict[str, torch.Tensor] = {}
    unreadable: dict[str, str] = {}
    transform = backbone.preprocessing.transform()
    for start in tqdm(range(0, len(paths), BATCH), "Encoding", leave=False, disable=not sys.stderr.isatty()):
        images = {}
        for path in paths[start : start + BATCH]:
            try:
                picture = read_named(path, upright=True)
            except UNDECODABLE as error:
                unreadable[path] = one_line(error)
            else:
                images[path] = transform(picture)
        if images:
            with torch.no_grad():
                encoded_BD = encode_pictures(backbone, torch.stack([*images.values()])).float()
            found |= zip(images, torch.nn.functional.normalize(encoded_BD, dim=1), strict=True)
    return found, unreadable


def pairs_above(
    tested: list[str], others: list[str], backbone: Backbone, least: float
) -> tuple[list[tuple[float, str, str]], dict[str, str]]:
    """(similarity, test picture, the nearest of the others) of each test picture that has one, nearest first; and what is
    wrong with each picture that cannot be read.

    The similarity is the cosine of features less their mean over all pictures, since pictures of one kind are all alike.
    """
    feature_of, unreadable = features([*dict.fromkeys([*tested, *others])], backbone)
    tested, others = ([path for path in paths if path in feature_of] for paths in (tested, others))
    if not tested or not others:
        return [], unreadable
    mean_D = torch.stack([*feature_of.values()]).mean(0)
    tested_ND, others_MD = (
        torch.nn.functional.normalize(torch.stack([feature_of[path] for path in paths]) - mean_D, dim=1)
        for paths in (tested, others)
    )
    found = []
    for path, feature_D in zip(tested, tested_ND, strict=True):
        near, which = (others_MD @ feature_D).max(0)
        if near >= least:
            found.append((float(near), path, others[int(which)]))
    return sorted(found, reverse=True), unreadable


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", help="a folder, a list (.csv, .tsv, .jsonl), or a dataset's name")
    parser.add_argument("--backbone", default="ViT-B/16", help="whose features: a CLIP's name or file, or small")
    parser.add_argument("--above", type=float, default=0.9, help="similarity from which pairs are said (0.9)")
    parser.add_argument("--data", default=os.environ.get("DATA"), help="folder of the datasets (DATA)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all pairs there")
    args = parser.parse_args()
    try:
        if not -1 <= args.above <= 1:
            raise ValueError(f"--above is {args.above}: use a similarity from -1 to 1")
        if args.csv and (args.csv.is_dir() or not args.csv.absolute().parent.is_dir()):
            raise ValueError(f"--csv {args.csv} cannot be written: name a file in a folder that is there")
        train, val, test = parts(args.pictures, args.data)
        if args.csv and args.csv.resolve() in {Path(path).resolve() for path in (args.pictures, *train, *val, *test)}:
            raise ValueError(f"{args.csv} would be overwritten: name another file")
        backbone = backbone_of(args.backbone)
        found, unreadable = pairs_above(test, [*train, *val], backbone, args.above)
        if args.csv:
            write_for_user(args.csv, csv_of([("similarity", "test picture", "nearest other"), *found]))
    except (OSError, ValueError) as error:
        print(f"error: {printable(one_line(error))}", file=sys.stderr)
        return 2
    for said in [*unreadable.values()][:SHOWN]:
        print(f"error: {printable(said)}", file=sys.stderr)
    if len(unreadable) > SHOWN:
        print(f"... and {len(unreadable) - SHOWN:,} more that cannot be read", file=sys.stderr)
    compared = sum(path not in unreadable for path in test)
    print(
        f"{len(found):,} of {compared:,} test pictures are at least {args.above:g} alike to one that trains or validates"
    )
    rows = [(f"{near:.4f}", printable(path), printable(other)) for near, path, other in found[:SHOWN]]
    if rows:
        print(tabulate(rows, ["similarity", "test picture", "nearest other"], disable_numparse=True))
    if len(found) > SHOWN:
        print(f"... and {len(found) - SHOWN:,} more{'' if args.csv else ' (--csv FILE has all)'}")
    return 1 if unreadable else 0


def parts(word: str, data: str | None) -> list[list[str]]:
    """Paths of the training, validation and test pictures."""
    dataset = dataset_of(word, data)
    if getattr(dataset, "test_only", False):
        raise ValueError(f'"{word}" has test pictures alone: there is nothing that they could be duplicates of')
    return [[item.impath for item in part or []] for part in (dataset.train_x, dataset.val, dataset.test)]
