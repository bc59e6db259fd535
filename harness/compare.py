"""Runs several methods few-shot on one dataset or one folder of pictures, and says which of them to take.

    python scripts/compare.py path/to/pictures 16
    python scripts/compare.py demo 4 --methods zsclip,coop,mocoop --seeds "1 2"

All methods see the same shots and the same test pictures; those that choose something by validation pictures choose it by
the same ones. Runs that are finished are not done again. Settings follow, as KEY value, where every method has them.
"""

import argparse
import math
import os
import shlex
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from statistics import mean

from tabulate import tabulate

from harness.catalog import method_named
from harness.command import one_number, seeds_of, split
from harness.plan import Request, in_words, shots_in
from harness.report.collect import Run, collect_runs
from harness.report.tables import half_interval, shots_title
from trainers.core.runs import confusion
from trainers.core.settings.errors import one_line, waited_for
from trainers.paths import ROOT, from_project, version

METHODS = "zsclip,zsclip_head,linear_probe,gda,lp_plus_plus,coop,lasp,mocoop,mocoop_plus"
Z = 1.96  # of a normal 95 % interval
LEGEND = """
± is half of a 95 % interval, over {seeds}test pictures. All methods see the same pictures, so differences are surer than
these intervals. Whoever takes the best of many should expect a little less on further pictures."""
ONE_SEED = " With one seed, the luck of\nits draw is in no interval: take more."


@dataclass(frozen=True)
class Row:
    """What a method reached: accuracy in percent, half of its 95 % interval from seeds (Student's) and from the number of
    test pictures, and seconds for a run, training and testing."""

    name: str
    title: str
    accuracy: float
    half: float
    seconds: float


def tested(runs: list[Run]) -> int:
    """Different test pictures of a method's runs; those of a cross-validation have other ones each."""
    in_folds = runs[0].identity is not None and runs[0].identity.settings.get("DATASET.FOLDS")
    return (sum if in_folds else min)(run.details["total"] for run in runs)


def row(name: str, title: str, runs: list[Run]) -> Row:
    """Of a method's finished runs, one for each seed."""
    values = [run.metrics["accuracy"] for run in runs]
    accuracy, total = mean(values), tested(runs)
    of_pictures = math.sqrt(max(accuracy * (100 - accuracy), 100 * 100 / (4 * total)) / total)
    of_seeds = half_interval(values) if len(values) > 1 else 0.0
    half = math.hypot(Z * of_pictures, of_seeds)
    return Row(name, title, accuracy, half, mean(run.details["seconds"] for run in runs))


def majority(runs: list[Run]) -> float:
    """Percent of the test pictures that are of the most frequent class."""
    pictures: Counter[str] = Counter()
    for run in runs:
        for (name, _), count in confusion.read(run.file.parent / confusion.NAME, run.details["total"]).items():
            pictures[name] += count
    return 100 * max(pictures.values()) / pictures.total()


def verdict(rows: list[Row], pictures: int, classes: int, usual: float | None) -> str:
    """Which method to take, in words, and how sure that is. rows: one for each method. usual: percent of the pictures
    that are of the most frequent class, if that is known."""
    best = max(rows, key=lambda row: row.accuracy)
    near = [r for r in rows if r is not best and best.accuracy - r.accuracy <= math.hypot(best.half, r.half)]
    said = [f"{best.title} has the best accuracy, {best.accuracy:.1f} %"]
    if near:
        names = ", ".join(r.title for r in sorted(near, key=lambda r: -r.accuracy))
        said[0] += f"; on {pictures:,} test pictures it cannot be told from {names}"
        quick = min([best, *near], key=lambda r: r.seconds)
        if quick.seconds < 0.8 * best.seconds:
            said.append(f"Of these, {quick.title} takes least time, {quick.seconds:.0f} s a run")
    else:
        said[0] += f", and on {pictures:,} test pictures no other method comes near"
    zero = next((r for r in rows if r.name == "zsclip"), None)
    if zero is not None and zero is not best:
        gain = best.accuracy - zero.accuracy
        surely = gain > math.hypot(best.half, zero.half)
        has = f"{zero.title}, which trains nothing, has {zero.accuracy:.1f} %"
        said.append(f"{has}: {gain:.1f} less" if surely else f"{has}, within the noise of the best")
    always = "" if usual is None else f", always saying the most frequent one {usual:.1f} %"
    said.append(f"Guessing among {classes} classes is right {100 / classes:.1f} % of the time{always}")
    return ". ".join(said) + "."


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    env = os.environ
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"MoCoOp {version()}")
    parser.add_argument("dataset", help="a dataset's name, or a folder of pictures")
    parser.add_argument("words", nargs="*", help="shots (default: 16; or all), and settings")
    parser.add_argument("--methods", default=METHODS, help=f"with commas between (default: {METHODS})")
    parser.add_argument("--seeds", default=env.get("SEEDS"), help='"1 2 3" (SEEDS)')
    parser.add_argument(
        "--folds",
        default="",
        help="cross-validation of own pictures without a test part: so many runs, one for each fold",
    )
    parser.add_argument(
        "--cfg", default=env.get("CFG", ""), help="config that every method has, as small, for the small CLIP (CFG)"
    )
    parser.add_argument("--data", default=env.get("DATA"), help="folder of the datasets (DATA)")
    parser.add_argument("--output", default=env.get("OUTPUT"), help="folder of the runs (OUTPUT)")
    parser.add_argument("--jobs", default=env.get("JOBS", ""), help="runs at a time (JOBS)")
    return parser.parse_intermixed_args(given)


def main(given: list[str] | None = None) -> int:
    args = parse_arguments(given)
    try:
        words, settings = split(args.words)
        if len(words) > 1:
            raise ValueError(f'"{words[1]}" is one word too many: compare.py takes dataset and shots')
        shots, *others = shots_in(words[0] if words else "16", "the number of shots")
        if others:
            raise ValueError(f'the number of shots is "{words[0]}": use one, or all')
        folds = one_number(args.folds, "--folds") if args.folds else 0
        seeds, names = seeds_of(args.seeds, folds), list(dict.fromkeys(args.methods.split(",")))
        if len(names) < 2:
            raise ValueError(f'--methods is "{args.methods}": name two or more')
        data, output = from_project(args.data, "data"), from_project(args.output, "output")
        asked, tag = [args.dataset, in_words(shots)], os.environ.get("TAG", "")
        requests = {
            name: Request(name, "main", asked, data, output, seeds, [shots], args.cfg, tag, settings, folds=folds)
            for name in names
        }
        several, federated = requests[names[0]].datasets(), [n for n in names if method_named(n).federated]
        if len(several) > 1:
            raise ValueError(f'"{args.dataset}" is {len(several)} datasets: compare.py takes one')
        if federated:
            raise ValueError(f"{federated[0]} is trained by clients, and each tests for itself: leave it out")
        if os.environ.get("CLUSTER"):
            raise ValueError(f"CLUSTER is {os.environ['CLUSTER']}, and compare.py waits for its runs: leave it out")
        folders = {name: [job.folder for job in request.runs()] for name, request in requests.items()}
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options = {
        "--seeds": args.seeds,
        "--folds": args.folds,
        "--cfg": args.cfg,
        "--data": args.data,
        "--output": args.output,
        "--jobs": args.jobs,
    }
    more = [word for name, value in options.items() if value for word in (name, value)]
    command = [sys.executable, str(ROOT / "scripts" / "run.py"), ",".join(names), "main", *asked, "--no-table", *more]
    status = waited_for([*command, *settings])
    if status:
        return status
    found = collect_runs([folder for own in folders.values() for folder in own], output).runs
    by_method: dict[str, list[Run]] = defaultdict(list)
    for run in found:
        by_method[run.method].append(run)
    rows = [row(name, method_named(name).title, by_method[method_named(name).trainer]) for name in names]
    pictures, classes = tested(by_method[found[0].method]), found[0].details["n_classes"]
    print(f"\n{args.dataset}, {shots_title(shots)}, {pictures:,} test pictures, {classes} classes\n")
    table = [(r.title, f"{r.accuracy:.1f} ± {r.half:.1f}", f"{r.seconds:.0f}") for r in rows]
    print(tabulate(table, headers=["method", "accuracy, %", "seconds a run"], colalign=("left", "right", "right")))
    by_seeds = max(map(len, by_method.values())) > 1
    print(LEGEND.format(seeds="seeds and " if by_seeds else "") + ("" if by_seeds else ONE_SEED))
    try:
        usual: float | None = majority(by_method[found[0].method])
    except (OSError, ValueError) as error:  # of an earlier version, or damaged
        usual = None
        print(f"Note: nothing is known of the most frequent class: {one_line(error)}")
    print(f"\n{verdict(rows, pictures, classes, usual)}")
    best = max(rows, key=lambda r: r.accuracy)
    print(f"Its runs: {shlex.quote(str(folders[best.name][0].parent))}")
    return 0
