"""Tables of everything that was run below a folder: few-shot, base-to-new, cross-dataset, domain generalisation.

    python parse_results.py output/
    python parse_results.py output/ --protocol base2new --format latex --out table.tex
    python parse_results.py output/ --published --plots figures --html report.html
    python parse_results.py output/ --watch

Each cell is the mean over seeds ± the standard deviation (numpy's, as in CoOp's parser; --ci95 for an
interval); the best of a row is bold where
the format can show it. Trees written by CoOp, CoCoOp, LASP and MaPLe are read too. Missing and unfinished runs are
listed below the tables with the command that would run them. docs/RESULTS_GUIDE.md shows everything.
"""

import argparse
import sys
from pathlib import Path

from harness.plan import in_words
from harness.report.collect import PROTOCOLS, Tree, collect
from harness.report.gaps import gaps
from harness.report.per_class import per_class_tables
from harness.report.published import published_tables
from harness.report.tables import as_csv, as_json, paired, render, shown_in, sources, tables
from harness.report.uses import strict
from trainers.core.runs.files import write_for_user
from trainers.core.settings.errors import did_you_mean
from trainers.paths import version


def shots_asked(word: str) -> int:
    """For argparse."""
    if word != "all" and not word.isdecimal():
        raise argparse.ArgumentTypeError(f'"{word}" is no number of shots: use a whole number, or all')
    return -1 if word == "all" else int(word)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"MoCoOp {version()}")
    parser.add_argument("directory", type=Path, help="folder with runs, at any depth")
    parser.add_argument(
        "--protocol",
        choices=(*PROTOCOLS, "main"),
        action="append",
        help="only this one; main is fewshot (may be repeated)",
    )
    parser.add_argument("--method", action="append", help="only this trainer (may be repeated)")
    parser.add_argument("--dataset", action="append", help="only this dataset (may be repeated)")
    parser.add_argument("--shots", type=shots_asked, action="append", help="only these shots, or all (may be repeated)")
    parser.add_argument(
        "--metric",
        choices=("accuracy", "macro_f1", "ece"),
        default="accuracy",
        help="ece: expected calibration error, where less is better",
    )
    parser.add_argument("--format", choices=("plain", "github", "latex", "csv", "json"), default="plain")
    spread = parser.add_mutually_exclusive_group()
    spread.add_argument(
        "--ci95", dest="spread", action="store_const", const="ci95", default="std",
        help="Student's 95 %% confidence interval of the mean instead of the standard deviation",
    )  # fmt: skip
    spread.add_argument(
        "--dassl-ci95", dest="spread", action="store_const", const="dassl_ci95",
        help="what Dassl's parser calls so: 1.96 times the population's deviation / sqrt(n)",
    )  # fmt: skip
    parser.add_argument(
        "--paired",
        metavar="TRAINER",
        help="add each method's difference from this one, seed by seed, with its interval",
    )
    parser.add_argument(
        "--per-class", action="store_true", help="add each class's accuracy, and what it is most often taken for"
    )
    parser.add_argument(
        "--strict", action="store_true",
        help="leave out what used more than the training shots and the names of the classes asked",
    )  # fmt: skip
    parser.add_argument("--published", action="store_true", help="add the literature's numbers, and the difference")
    parser.add_argument("--out", type=Path, help="write there instead of to the screen")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw figures into this folder, as PNG, PDF and SVG")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page with tables, figures and settings")
    parser.add_argument("--watch", action="store_true", help="show the runs that are going on until they end")
    parser.add_argument("--verbose", action="store_true", help="name the files behind every cell")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    args.protocol = args.protocol and ["fewshot" if name == "main" else name for name in args.protocol]
    try:
        refuse_idle_words(args)
        if args.watch:
            from harness.report.watch import watch

            watch(args.directory)
            return 0
        tree = collect(args.directory)
        wanted = {"protocol": args.protocol, "method": args.method, "dataset": args.dataset, "shots": args.shots}
        # a method that draws nothing (shots None) stands beside any number of shots
        for name, values in wanted.items():
            known = {getattr(run, name) for run in tree.runs} - {None}
            missing = next((value for value in values or () if value not in known), None)
            if missing is not None and known:
                there = [in_words(value) if name == "shots" else str(value) for value in sorted(known)]
                asked = in_words(missing) if name == "shots" else str(missing)
                hint = did_you_mean(asked, there) or ";"
                raise ValueError(
                    f"no run below {args.directory} is of --{name} {asked}{hint} there are {', '.join(there)}"
                )
        runs = [r for r in tree.runs if all(not v or getattr(r, k) in (*v, None) for k, v in wanted.items())]
        if args.strict:
            runs, more = strict(runs, shown_in(runs))
            for line in more:
                print(f"left out by --strict: {line}", file=sys.stderr)
        report(args, Tree(runs, tree.unreadable))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for line in gaps(runs):
        print(line, file=sys.stderr)
    for path, reason in tree.unreadable.items():
        print(f"left out: {path} ({reason})", file=sys.stderr)
    return 0


def refuse_idle_words(args: argparse.Namespace) -> None:
    """Raises ValueError for options that could do nothing in this call, and for files that cannot be written."""
    given = {word.split("=")[0] for word in sys.argv[1:] if word.startswith("--")}
    of_tables = {"--metric", "--paired", "--published", "--per-class", "--ci95", "--dassl-ci95", "--verbose"}
    others = {"json": of_tables, "csv": {"--verbose"}}.get(args.format, set())
    beside_tables = {
        "--format",
        "--out",
        "--plots",
        "--html",
        "--strict",
        "--method",
        "--dataset",
        "--shots",
        "--protocol",
    }
    for word in sorted(given & (of_tables | beside_tables if args.watch else others)):
        raise ValueError(
            f"{word} does nothing with {'--watch' if args.watch else f'--format {args.format}'}: leave it out"
        )
    if args.published and args.metric != "accuracy":
        raise ValueError(f"--published does nothing with --metric {args.metric}: the literature reports accuracies")
    for path in (args.out, args.html):
        if path and not path.absolute().parent.is_dir():
            raise ValueError(f"no folder {path.absolute().parent} to write {path.name} into")
        if path and path.is_dir():
            raise ValueError(f"{path} is a folder: name a file in it")
    if args.plots and args.plots.exists() and not args.plots.is_dir():
        raise ValueError(f"--plots {args.plots} is no folder")
    if args.out and args.html and args.out.resolve() == args.html.resolve():
        raise ValueError(f"--out and --html would both be {args.out}: name two files")


def report(args: argparse.Namespace, tree: Tree) -> None:
    """Prints or writes what was asked for."""
    found = tables(tree.runs, args.metric)
    if args.paired:
        compared = [table for table in found if table.has(args.paired)]
        if not compared:
            print(f'note: no table has one column of the trainer "{args.paired}" of --paired', file=sys.stderr)
        found += [paired(table, args.paired) for table in compared]
    if args.per_class:
        of_classes, without = per_class_tables(tree.runs)
        found += of_classes
        for line in without:
            print(f"note: {line}", file=sys.stderr)
    literature = published_tables(tree.runs, args.metric, args.protocol or PROTOCOLS) if args.published else []
    if args.format == "json":
        text = as_json(tree.runs)
    elif args.format == "csv":
        text = as_csv([*found, *literature], args.spread)
    else:
        style = "simple" if args.format == "plain" else args.format
        blocks = [render(table, style, args.spread) for table in (*found, *literature)]
        if args.verbose:
            blocks += [sources(table) for table in found]
        if args.format == "latex" and blocks:
            blocks.insert(0, "% \\usepackage{booktabs, graphicx, longtable}")
        text = "\n\n\n".join(blocks) or f"no finished runs below {args.directory}"
    if args.out:
        write_for_user(args.out, text.rstrip("\n") + "\n")
    else:
        print(text.rstrip("\n"))
    if args.plots or args.html:
        from harness.report import page, plots  # matplotlib is slow to import

        drawn = list(plots.figures(found, tree.runs, args.metric, args.per_class))
        if args.plots:
            written = plots.save(drawn, args.plots)
            print(f"{len(written)} figures in {args.plots}, as PNG, PDF and SVG", file=sys.stderr)
        if args.html:
            title = f"Results below {args.directory}"
            shown = [*found, *literature]
            text = page.page(tree, shown, drawn, title, args.metric, args.spread, args.per_class)
            write_for_user(args.html, text)
            print(f"report written to {args.html}", file=sys.stderr)
