"""Classify pictures with a trained run.

    python predict.py output/fewshot/demo/shots_16/MoCoOp/small/seed1 holiday/*.jpg
    python predict.py RUN pictures/ --top 3 --csv found.csv --sheet found.html
    python predict.py RUN new.jpg --classnames "red panda, okapi"      classes that it was never trained on
    python predict.py RUN pictures/ --truth folders --reject validation --sheet found.html

RUN is the folder of a finished run, or one that export.py wrote. PICTURES are files, folders (to any depth) or patterns.
Exit status: 0 done, 1 something could not be read (it is named, and the others are classified), 2 wrong words.
"""

import argparse
import glob
import json
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from tqdm import tqdm

from ...paths import version
from ..loading.read import UNDECODABLE, pictures_below, told
from ..runs.files import as_cell, csv_of, printable, write_for_user
from ..settings.errors import one_line
from ..settings.text_files import read_pairs, read_text
from . import Prediction, TrainedModel, checked_names, open_model
from .sheet import Shown, files_of, pages
from .truth import NAMES_FILE, judged, names_folders, truth_of


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"MoCoOp {version()}")
    parser.add_argument("run", help="folder of a finished run, or of an export")
    parser.add_argument("pictures", nargs="+", help="files, folders, patterns")
    parser.add_argument("--top", type=int, default=5, help="classes shown of each picture (default: 5)")
    parser.add_argument(
        "--classnames", help="other classes: names with commas between them, or a file with a line each"
    )
    parser.add_argument("--calibrated", action="store_true", help="probabilities at the validation split's temperature")
    parser.add_argument(
        "--truth",
        choices=("folders",),
        default="",
        help="pictures lie in folders of their classes' names: says how many are right",
    )
    parser.add_argument(
        "--reject", default="", metavar="P",
        help="reject pictures whose likeliest class is less probable: a number, or validation, for what keeps 95 %% of the "
        "right answers on validation pictures",
    )  # fmt: skip
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="picture, rank, class, probability, experts; truth, rejected",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same, nested")
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="a page with the pictures and what they show; 200 a page, mistakes first",
    )
    parser.add_argument("--epoch", type=int, help="which epoch's model (default: the best on validation, or the last)")
    parser.add_argument("--backbone", default="", help="the backbone's file, where it lies elsewhere now")
    parser.add_argument("--device", default="", help="cpu or cuda (default: the GPU, if there is one)")
    parser.add_argument("--batch", type=int, default=64, help="pictures at a time (default: 64)")
    args = parser.parse_args()
    args.reject_below = _probability(args.reject)
    if args.reject_below is None and args.reject not in ("", "validation"):
        parser.error(f'--reject is "{args.reject}": use a probability from 0 to 1, or validation')
    if args.top < 1 or args.batch < 1:
        parser.error("--top and --batch take numbers from 1 on")
    if not re.fullmatch(r"|cpu|cuda(:\d+)?", args.device):
        parser.error(f'--device is "{args.device}": use cpu, cuda, or one of several as cuda:1')
    return args


def _probability(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 <= found <= 1 else None


def find(words: list[str]) -> tuple[list[str], list[str]]:
    """The pictures that files, folders and patterns match, each once, and the other files in the folders.

    Raises ValueError for a word that means no picture.
    """
    found: list[str] = []
    others: list[str] = []
    for word in words:
        more: list[str] = []
        if os.path.isdir(word):
            inside, more = pictures_below(word)
            others += more
        elif os.path.isfile(word):
            inside = [word]
        else:
            inside = sorted(path for path in glob.glob(word, recursive=True) if os.path.isfile(path))
        if not inside:
            others_there = f" ({told(more)})" if more else ""
            raise ValueError(f"no pictures at {word}{others_there}: give files, folders or patterns")
        found += inside
    once: dict[str, str] = {}
    for path in found:
        once.setdefault(os.path.abspath(path), path)
    return list(once.values()), others


def names_from(word: str) -> list[str]:
    """Class names from a file, a line each (of a classnames.txt that names folders there, what stands behind them), or
    from the word itself, commas between them. Raises ValueError, OSError."""
    if os.path.isfile(word):
        if os.path.basename(word) == NAMES_FILE and names_folders(Path(word)):  # a folder of pictures' own
            return list(read_pairs(word).values())
        return [line for line in read_text(word).splitlines() if line.strip()]
    if word.endswith(".txt") or (os.sep in word and "," not in word):
        raise FileNotFoundError(f"no file {word}: give names with commas between them, or a file with a line each")
    return word.split(",")


def classify(model: TrainedModel, paths: list[str], args: argparse.Namespace) -> tuple[list[Prediction], list[str]]:
    """What the readable pictures show, and a line for each that cannot be read."""
    found, unreadable = [], []
    for start in tqdm(range(0, len(paths), args.batch), "Classifying", leave=False, disable=not sys.stderr.isatty()):
        names, images = [], []
        for path in paths[start : start + args.batch]:
            try:
                images.append(model.read(path))
                names.append(path)
            except UNDECODABLE as error:
                unreadable.append(f"{path} cannot be read: {one_line(error).removeprefix(f'{path} ')}")
        if images:
            found += model.classify(torch.stack(images), args.top, args.calibrated, args.batch, names)
    return found, unreadable


@dataclass(frozen=True)
class Answers:
    """What the pictures show. truth: picture -> its class, "" for none of the model's, None if that was not asked.
    rejected: the pictures whose likeliest class is too improbable, None if that was not asked."""

    found: list[Prediction]
    truth: dict[str, str] | None = None
    rejected: set[str] | None = None

    def more(self, p: Prediction) -> dict[str, str]:
        """What was asked for beside classes and experts."""
        said = {} if self.truth is None else {"truth": self.truth[p.picture]}
        return said if self.rejected is None else said | {"rejected": "yes" if p.picture in self.rejected else ""}


def as_table(answers: Answers) -> str:
    """A line for each picture."""
    found = answers.found
    rows = [
        [
            printable(p.picture),
            *map(printable, answers.more(p).values()),
            *(f"{printable(name)} {100 * share:.1f}%" for name, share in p.classes),
            _experts(p.experts),
        ]
        for p in found
    ]
    columns = max(len(p.classes) for p in found)
    header = ["picture", *answers.more(found[0]), *(str(rank) for rank in range(1, columns + 1)), "experts"]
    if not any(p.experts for p in found):
        rows, header = [row[:-1] for row in rows], header[:-1]
    return tabulate(rows, header, disable_numparse=True)


def summary(answers: Answers, classes: int) -> list[str]:
    """Lines below the table: how many pictures were taken for what; with truth, how many are right."""
    found = answers.found
    counts = Counter(p.classes[0][0] for p in found if p.picture not in (answers.rejected or ()))
    shown = ", ".join(f"{count:,} {printable(name)}" for name, count in counts.most_common(10))
    more = f", {sum(n for _, n in counts.most_common()[10:]):,} others" if len(counts) > 10 else ""
    out = "" if answers.rejected is None else f", {len(answers.rejected):,} rejected"
    lines = [f"{len(found):,} picture{'' if len(found) == 1 else 's'}: {shown or 'none'}{more}{out}"]
    if len(counts) == 1 and len(found) > 20 and not answers.rejected:
        lines.append("Note: all were taken for one class")
    if answers.truth is not None:
        lines += judged(found, answers.truth, answers.rejected, classes)
    return lines


def _experts(experts: list[tuple[str, float]]) -> str:
    return "; ".join(f"{template} {weight:.2f}" for template, weight in experts)


def as_csv(answers: Answers) -> str:
    """Columns picture, rank, class, probability, experts; truth and rejected, where asked."""
    rows: list[list[Any]] = [["picture", "rank", "class", "probability", "experts", *answers.more(answers.found[0])]]
    for p in answers.found:
        more = [as_cell(said) for said in answers.more(p).values()]
        for rank, (name, share) in enumerate(p.classes, 1):
            rows.append([as_cell(p.picture), rank, as_cell(name), f"{share:.6f}", as_cell(_experts(p.experts)), *more])
    return csv_of(rows)


def as_json(answers: Answers) -> str:
    return json.dumps(
        [
            {"picture": p.picture, "classes": [{"class": name, "probability": share} for name, share in p.classes],
             "experts": [{"template": template, "weight": weight} for template, weight in p.experts]} | answers.more(p)
            for p in answers.found
        ],
        indent=1, ensure_ascii=False,
    )  # fmt: skip


def write(answers: Answers, args: argparse.Namespace, model: TrainedModel) -> None:
    """The files that were asked for, whole or not at all."""
    made: list[tuple[Path | None, Any]] = [(args.csv, as_csv), (args.json, as_json)]
    for path, text in made:
        if path:
            write_for_user(path, text(answers))
            print(f"Wrote {path}")
    if args.sheet:
        shown = [
            Shown(p.picture, p.classes, p.experts, None if answers.truth is None else answers.truth[p.picture],
                  p.picture in (answers.rejected or ())) for p in answers.found
        ]  # fmt: skip
        if answers.truth is not None:  # mistakes first, the surest above
            shown.sort(key=lambda s: (s.is_right, -s.classes[0][1]))
        title = f"{model.method}: {len(shown):,} picture{'' if len(shown) == 1 else 's'}"
        for path, page in pages(args.sheet, shown, title, f"{len(model.classnames)} classes", model.upright):
            write_for_user(path, page)
            print(f"Wrote {path}")


def main() -> int:
    args = parse_arguments()
    try:
        paths, others = find(args.pictures)
        for path in (args.csv, args.json, args.sheet):
            if path and not path.absolute().parent.is_dir():
                raise ValueError(f"no folder {path.absolute().parent} to write {path.name} into")
            if path and path.is_dir():
                raise ValueError(f"{path} is a folder: name a file in it")
        sheets = files_of(args.sheet, len(paths)) if args.sheet else []
        named = [
            os.path.realpath(path) for path in (args.csv, args.json, *sheets) if path and not path.is_char_device()
        ]
        read = {os.path.realpath(path) for path in (*paths, args.classnames or "", args.backbone) if path}
        run = os.path.realpath(args.run) + os.sep
        both = [path for path in named if path in read or (path.startswith(run) and os.path.exists(path))]
        if both or len({*named}) < len(named):
            double = next((path for path in named if named.count(path) > 1), "")
            raise ValueError(f"{next(iter(both), double)} would be overwritten: name another file")
        names = checked_names(names_from(args.classnames)) if args.classnames is not None else None
        model = open_model(args.run, args.epoch, args.backbone, names)
        if args.truth:
            others = [path for path in others if os.path.basename(path) != NAMES_FILE]
            truth = truth_of(paths, [word for word in args.pictures if os.path.isdir(word)], model.classnames)
        below = args.reject_below
        if args.reject == "validation":
            below = model.rejection_threshold(args.calibrated)
        if others:
            print(f"Note: {told(others)}", file=sys.stderr)
        if args.calibrated:
            model.checked_temperature()
            if names is not None:
                print("Note: the temperature was fitted to the classes of training, and these are others")
        if args.reject == "validation":
            if names is not None:
                print("Note: the threshold is that of the classes of training, and these are others")
            print(
                f"Rejecting what has a likeliest class less probable than {below:.3f}, as chosen on validation pictures"
            )
        if (args.device or "").startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"--device is {args.device}, and torch finds no GPU: leave it out")
        model.to(torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu")))
        found, unreadable = classify(model, paths, args)
        if found:
            rejected = None if below is None else {p.picture for p in found if p.classes[0][1] < below}
            answers = Answers(found, truth if args.truth else None, rejected)
            print(as_table(answers))
            print("\n" + "\n".join(summary(answers, len(model.classnames))))
            write(answers, args, model)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {printable(one_line(error))}", file=sys.stderr)
        return 2
    for line in unreadable:
        print(f"error: {printable(line)}", file=sys.stderr)
    return 1 if unreadable else 0
