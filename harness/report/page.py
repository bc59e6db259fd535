"""The report as one self-contained HTML file: tables, figures, how long runs took, versions, configurations."""

import base64
import io
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from matplotlib.figure import Figure

from harness.catalog import dataset_title, method_title
from trainers.core.inference.sheet import embedded
from trainers.core.runs import mistakes
from trainers.core.runs.mistakes import Mistake

from .collect import Run, Tree
from .gaps import gaps
from .tables import SPREADS, Table, best_cells, by_number, method_key, method_names, shots_title, texts

MISTAKES = 8  # pictures of a data set and method


def page(
    tree: Tree,
    tables: list[Table],
    figures: Iterable[tuple[str, Figure]],
    title: str,
    metric: str,
    spread: str,
    per_class: bool = False,
) -> str:
    """The HTML text; it loads nothing from anywhere. per_class: with the surest mistakes of each data set and method."""
    template = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("page.html.j2")
    return template.render(
        title=title,
        now=time.strftime("%Y-%m-%d %H:%M"),
        metric=metric,
        spread=SPREADS[spread],
        runs=tree.runs,
        n_finished=sum(r.finished for r in tree.runs),
        tables=[_shown(table, spread) for table in tables],
        figures=[(name, _png(figure)) for name, figure in figures],
        mistakes=list(_mistakes(tree.runs)) if per_class else [],
        durations=_durations(tree.runs),
        gaps=gaps(tree.runs),
        unreadable=tree.unreadable,
        versions=_versions(tree.runs),
        configurations=_configurations(tree.runs),
    )


def _shown(table: Table, spread: str) -> dict[str, Any]:
    """Lines of (text, whether it is the best, the files behind it)."""
    lines = []
    for (labels, cells), line, best in zip(table.rows, texts(table, spread), best_cells(table), strict=True):
        marks = [False] * len(labels) + [j in best for j in range(len(cells))]
        files = [""] * len(labels) + ["\n".join(map(str, c.files)) for c in cells]
        lines.append(list(zip(line, marks, files, strict=True)))
    return {
        "name": table.name,
        "title": table.title,
        "header": list(map(table.signed, table.header)),
        "lines": lines,
        "notes": table.notes,
    }


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def _mistakes(runs: list[Run]) -> Iterator[tuple[str, list[tuple[Mistake, str]]]]:
    """Title and (mistake, picture) of the few-shot runs that have them."""
    chosen: dict[tuple[str, str, str], Run] = {}
    for run in sorted(runs, key=lambda run: (-by_number(run.shots), run.seed or 0)):
        if run.finished and run.protocol == "fewshot" and (run.file.parent / mistakes.NAME).is_file():
            chosen.setdefault((run.dataset, run.method, run.variant), run)
    names = method_names([*chosen.values()])
    for run in chosen.values():
        found = mistakes.read(run.file.parent / mistakes.NAME)[:MISTAKES]
        upright = run.details.get("dataset") == "FolderDataset"
        shots = "" if run.shots is None else f", {shots_title(run.shots)}, seed {run.seed}"
        title = f"{dataset_title(run.dataset)}, {names[method_key(run, names)]}{shots}"
        if found:
            yield title, [(m, embedded(m.picture, upright)) for m in found]


def _durations(runs: list[Run]) -> list[list[Any]]:
    groups = defaultdict(list)
    for r in runs:
        if r.finished:
            groups[r.protocol, r.dataset, r.method, r.variant, r.shots].append(r.details)
    rows = []
    for (protocol, dataset, method, config, shots), own in groups.items():
        names = [
            protocol,
            dataset_title(dataset),
            method_title(method),
            config,
            "-" if shots is None else shots_title(shots),
        ]
        rows.append([*names, len(own), _mean(own, "train_seconds"), _mean(own, "test_seconds")])
    return rows


def _mean(details: list[dict[str, Any]], key: str) -> str:
    known = [d[key] for d in details if key in d]
    return f"{statistics.fmean(known):.1f}" if known else "-"


def _versions(runs: list[Run]) -> list[list[Any]]:
    counted: Counter[tuple[str, ...]] = Counter()
    for r in runs:
        v = r.details.get("versions", {})
        if v:
            own = (r.details.get("backbone", "-"), str(r.details.get("backbone_sha256", "-"))[:12])
            counted[v.get("python", "-"), v.get("torch", "-"), v.get("dassl", "-"), *own] += 1
    return [[n, *key] for key, n in counted.most_common()]


def _configurations(runs: list[Run]) -> list[tuple[str, list[tuple[str, Any]]]]:
    """What all runs share first, then what is special to each method, dataset and config."""
    settings: dict[str, dict[str, Any]] = {}
    for r in runs:
        if r.identity is not None:
            of_r = dict(r.identity.settings)
            of_r.pop("SEED", None)
            name = ", ".join(filter(None, (r.protocol, r.part, dataset_title(r.dataset), method_title(r.method), r.variant,
                                           shots_title(r.shots) if r.shots else "")))  # fmt: skip
            if settings.setdefault(name, of_r) != of_r:  # seeds of one place that differ: each its own
                settings[f"{name}, seed {r.seed}"] = of_r
    if not settings:
        return []
    first = next(iter(settings.values()))
    shared = {k: v for k, v in first.items() if all(k in own and own[k] == v for own in settings.values())}
    special = [(name, sorted((k, v) for k, v in own.items() if k not in shared)) for name, own in settings.items()]
    return [("all runs", sorted(shared.items())), *sorted(special)]
