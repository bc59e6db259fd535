"""A page with the test pictures that a run was surest of and took for another class: picture, class, answer, experts.

    python scripts/mistakes.py output/fewshot/demo/shots_16/MoCoOp/small/seed1

It is written into the run's folder, as mistakes.html, or where --out says. Every run keeps its 100 surest mistakes in
mistakes.csv, and which classes were taken for which in confusion.csv.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..runs import mistakes
from ..runs.files import printable, write_for_user
from ..runs.mistakes import Mistake
from ..runs.results import read_results
from ..settings.errors import one_line
from ..training import checkpoints
from .model import load_run
from .sheet import Shown, pages

NO_PICTURES = "not one of its pictures is where it was when the run was evaluated"


def shown_of(found: Sequence[Mistake], experts: dict[str, list[tuple[str, float]]]) -> list[Shown]:
    """The mistakes as a page shows them. experts: picture -> experts, where they are known."""
    return [
        Shown(
            m.picture, [(m.predicted, m.confidence), (m.classname, m.of_class)], experts.get(m.picture, []), m.classname
        )
        for m in found
    ]


def experts_of(run: Path, found: Sequence[Mistake], backbone: str) -> dict[str, list[tuple[str, float]]]:
    """Picture -> experts, if the run holds a model that has some."""
    file, there = checkpoints.model_file(run), [m.picture for m in found if Path(m.picture).is_file()]
    if not there or not file.is_file():
        return {}
    try:
        if not checkpoints.load(file).get("identity", {}).get("template_groups"):
            return {}
        return {p.picture: p.experts for p in load_run(run, backbone=backbone).classify(there)}
    except (ValueError, OSError) as error:
        print(f"Note: the page names no experts: {printable(one_line(error))}", file=sys.stderr)
        return {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: mistakes.html in the run's folder")
    parser.add_argument("--backbone", default="", help="the backbone's file, where it lies elsewhere now")
    args = parser.parse_args()
    try:
        results, file = args.run / "results.json", args.run / mistakes.NAME
        out = args.out or args.run / "mistakes.html"
        if out.is_dir() or not out.absolute().parent.is_dir():
            raise ValueError(f"--out {out} cannot be written: name a file in a folder that is there")
        if args.out and out.exists() and out.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"{out} would be overwritten: name another file")
        if not results.is_file():
            raise ValueError(f"{args.run} is no finished run: give the folder that holds results.json")
        if not file.is_file():
            raise ValueError(
                f"no {mistakes.NAME} in {args.run}: it was evaluated by an older version (evaluate it again) or by clients"
            )
        figures, found = read_results(results), mistakes.read(file)
        if found and not any(Path(m.picture).is_file() for m in found):
            raise ValueError(f"{NO_PICTURES}: {found[0].picture} and the others are gone")
        wrong = figures["total"] - figures["correct"]
        title = f"{figures['trainer']} on {figures['dataset']}: {len(found)} of {wrong:,} mistakes, the surest first"
        about = (
            f"{figures['accuracy']:.1f} % of {figures['total']:,} pictures right, macro F1 {figures['macro_f1']:.1f} %"
        )
        shown = shown_of(found, experts_of(args.run, found, args.backbone))
        upright = figures["dataset"] == "FolderDataset"
        for path, page in pages(out, shown, title, about, upright):
            write_for_user(path, page)
            print(f"Wrote {printable(str(path))}")
    except (ValueError, OSError, KeyError) as error:
        print(f"error: {printable(one_line(error))}", file=sys.stderr)
        return 2
    return 0
