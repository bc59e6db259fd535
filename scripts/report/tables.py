"""Tables of runs: few-shot, base-to-new, cross-dataset, domain generalisation, ablation; and their text."""

import csv
import io
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from .collect import DATASETS, PROTOCOLS, Run

TITLES = {
    "fewshot": "Few-shot: all classes",
    "base2new": "Base-to-new",
    "xd": "Cross-dataset",
    "dg": "Domain generalisation",
    "ablation": "Ablation of MoCoOp: few-shot",
}
METHOD_ORDER = ["ZeroshotCLIP", "ZeroshotCLIP2", "LinearProbe", "CoOp", "CoCoOp", "LASP", "MoCoOp"]


@dataclass(frozen=True)
class Cell:
    """The values of one cell, one per seed, and the files they come from."""

    values: tuple[float, ...] = ()
    files: tuple[Path, ...] = ()
    signed: bool = False

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    def spread(self, ci95: bool) -> float:
        deviation = statistics.pstdev(self.values)
        return 1.96 * deviation / len(self.values) ** 0.5 if ci95 else deviation


@dataclass
class Table:
    """Rows of labels and cells. `name` is for files; `best_of`: groups of columns within which the largest is marked."""

    name: str
    title: str
    header: list[str]
    rows: list[tuple[list[str], list[Cell]]]
    best_of: list[list[int]]
    notes: list[str] = field(default_factory=list)
    source: str = ""

    def filled(self) -> Iterator[tuple[list[str], str, Cell]]:
        """(labels, column, cell) of every cell that has values, row by row."""
        for labels, cells in self.rows:
            for column, cell in zip(self.header[len(labels) :], cells, strict=True):
                if cell.values:
                    yield labels, column, cell


def harmonic(base: float, new: float) -> float:
    """H = 2BN / (B + N); 0 when both are."""
    return 2 * base * new / (base + new) if base + new else 0.0


def _cell(runs: Iterable[Run], metric: str) -> Cell:
    found = sorted((r for r in runs if metric in r.metrics), key=lambda r: r.seed)
    return Cell(tuple(r.metrics[metric] for r in found), tuple(r.file for r in found))


def _method_names(runs: Sequence[Run]) -> dict[tuple[str, str], str]:
    """(method, config) -> column title: the config is named only where a method has several on one dataset."""
    configs = defaultdict(set)
    for r in runs:
        configs[r.method, r.dataset, r.shots, r.part].add(r.config)
    several = {method for (method, *_), found in configs.items() if len(found) > 1}
    keys = {(r.method, r.config if r.method in several else "") for r in runs}
    rank = {m: i for i, m in enumerate(METHOD_ORDER)}
    ordered = sorted(keys, key=lambda k: (rank.get(k[0], len(rank)), k))
    return {key: f"{key[0]} ({key[1]})" if key[1] else key[0] for key in ordered}


def _key(run: Run, names: dict[tuple[str, str], str]) -> tuple[str, str]:
    return (run.method, run.config) if (run.method, run.config) in names else (run.method, "")


def _ordered(names: Iterable[str], first: str = "") -> list[str]:
    rank = {d: i for i, d in enumerate(DATASETS)}
    return sorted(set(names), key=lambda d: (d != first, rank.get(d, len(rank)), d))


def few_shot_table(runs: list[Run], metric: str) -> Table:
    """Datasets and methods down, shots across; then the average over datasets."""
    names = _method_names(runs)
    shots = sorted({r.shots for r in runs})
    datasets = _ordered(r.dataset for r in runs)
    rows, columns = [], defaultdict(list)
    for dataset in datasets:
        for key, name in names.items():
            own = [r for r in runs if r.dataset == dataset and _key(r, names) == key]
            if not own:
                continue
            cells = [_cell((r for r in own if r.shots == k), metric) for k in shots]
            rows.append(([dataset, name], cells))
            for k, cell in zip(shots, cells, strict=True):
                columns[key, k].append(cell)
    if len(datasets) > 1:
        for key, name in names.items():
            averages = [_average(columns[key, k], len(datasets)) for k in shots]
            if any(cell.values for cell in averages):
                rows.append(([f"average of {len(datasets)}", name], averages))
    header = ["dataset", "method", *(f"{k} shots" if k > 1 else "1 shot" for k in shots)]
    return Table("fewshot", TITLES["fewshot"], header, rows, [])


def _average(cells: list[Cell], expected: int) -> Cell:
    full = [cell for cell in cells if cell.values]
    if len(full) < expected:
        return Cell()
    return Cell((statistics.fmean(cell.mean for cell in full),), tuple(f for cell in full for f in cell.files))


def base_to_new_table(runs: list[Run], metric: str) -> Table:
    """Datasets down; base, new and their harmonic mean of each method across; the average row as the papers compute it."""
    names = _method_names(runs)
    datasets = _ordered(r.dataset for r in runs)
    rows = []
    sums: dict[tuple, list[list[Cell]]] = defaultdict(lambda: [[], []])
    for dataset in datasets:
        cells = []
        for key in names:
            own = [r for r in runs if r.dataset == dataset and _key(r, names) == key]
            base, new = (_cell((r for r in own if r.part == part), metric) for part in ("base", "new"))
            h = Cell((harmonic(base.mean, new.mean),)) if base.values and new.values else Cell()
            cells += [base, new, h]
            sums[key][0].append(base)
            sums[key][1].append(new)
        rows.append(([dataset], cells))
    notes = [
        "H is the harmonic mean of the means over seeds; in the average row, of the averaged base and new accuracies, as in"
        " the papers."
    ]
    if len(datasets) > 1:
        cells, h_means = [], []
        for key, name in names.items():
            base, new = (_average(part, len(datasets)) for part in sums[key])
            complete = base.values and new.values
            cells += [base, new, Cell((harmonic(base.mean, new.mean),)) if complete else Cell()]
            if complete:
                per_dataset = [harmonic(b.mean, n.mean) for b, n in zip(*sums[key], strict=True)]
                h_means.append(f"{name} {statistics.fmean(per_dataset):.2f}")
        rows.append(([f"average of {len(datasets)}"], cells))
        if h_means:
            notes.append("Mean of the datasets' H: " + ", ".join(h_means) + ".")
    scored = {r.details["text_classes"] for r in runs if "text_classes" in r.details}
    if scored:
        notes.append(
            f"Class names in the text loss of LASP and MoCoOp while training on base: {', '.join(sorted(scored))}."
        )
    header = ["dataset"] + [f"{name} {part}" for name in names.values() for part in ("base", "new", "H")]
    return Table(
        "base2new", TITLES["base2new"], header, rows, [list(range(i, 3 * len(names), 3)) for i in range(3)], notes
    )


def transfer_table(runs: list[Run], metric: str, protocol: str) -> Table:
    """Targets down, methods across, the source first; the average is over the targets, without the source."""
    names = _method_names(runs)
    source = runs[0].source
    targets = _ordered((r.part for r in runs), first=source)
    rows, columns = [], defaultdict(list)
    for target in targets:
        cells = []
        for key in names:
            cell = _cell((r for r in runs if r.part == target and _key(r, names) == key), metric)
            cells.append(cell)
            if target != source:
                columns[key].append(cell)
        rows.append(([f"{target} (source)" if target == source else target], cells))
    others = len(targets) - (source in targets)
    if others > 1:
        rows.append(([f"average of {others}"], [_average(columns[key], others) for key in names]))
    title = f"{TITLES[protocol]}, trained on {source}"
    return Table(
        f"{protocol}_from_{source}", title, ["target", *names.values()], rows, [list(range(len(names)))], source=source
    )


def ablation_table(runs: list[Run], metric: str) -> Table:
    """What was changed down, datasets across."""
    datasets = _ordered(r.dataset for r in runs)
    changes = sorted({r.part for r in runs}, key=lambda part: (part != "full", part))
    rows = [
        ([part], [_cell((r for r in runs if (r.part, r.dataset) == (part, d)), metric) for d in datasets])
        for part in changes
    ]
    shots = ", ".join(map(str, sorted({r.shots for r in runs})))
    title = f"{TITLES['ablation']}, {shots} shots"
    return Table("ablation", title, ["change", *datasets], rows, [[j] for j in range(len(datasets))])


def tables(runs: list[Run], metric: str) -> list[Table]:
    """One table per protocol (and source) that has finished runs."""
    found = []
    for protocol in PROTOCOLS:
        own = [r for r in runs if r.protocol == protocol and r.finished]
        if not own:
            continue
        if protocol == "fewshot":
            found.append(few_shot_table(own, metric))
        elif protocol == "base2new":
            found.append(base_to_new_table(own, metric))
        elif protocol == "ablation":
            found.append(ablation_table(own, metric))
        else:
            for source in _ordered(r.source for r in own):
                found.append(transfer_table([r for r in own if r.source == source], metric, protocol))
    return found


def best_cells(table: Table) -> list[set[int]]:
    """For each row, the columns that hold the best value."""
    by_label: dict[str, list[list[Cell]]] = defaultdict(list)
    for labels, cells in table.rows:
        by_label[labels[0]].append(cells)
    found = []
    for labels, cells in table.rows:
        marked = set()
        for group in table.best_of:
            filled = [j for j in group if cells[j].values]
            if len(filled) > 1:
                marked.add(max(filled, key=lambda j: cells[j].mean))
        if not table.best_of:  # methods go down: the best of each column among the rows of one dataset
            for j, cell in enumerate(cells):
                rivals = [row[j].mean for row in by_label[labels[0]] if row[j].values]
                if cell.values and len(rivals) > 1 and cell.mean == max(rivals):
                    marked.add(j)
        found.append(marked)
    return found


def texts(table: Table, ci95: bool = False) -> list[list[str]]:
    """Each row's labels (a repeated first one left empty) and cells as mean ± spread, with the seeds where they differ."""
    usual = max((len(c.values) for _, cells in table.rows for c in cells), default=1)
    lines = []
    for i, (labels, cells) in enumerate(table.rows):
        repeated = i > 0 and table.rows[i - 1][0][0] == labels[0] and len(labels) > 1
        shown = ["", *labels[1:]] if repeated else labels
        lines.append(shown + [_text(cell, usual, ci95) for cell in cells])
    return lines


def _text(cell: Cell, usual: int, ci95: bool) -> str:
    if not cell.values:
        return "-"
    text = f"{cell.mean:+.2f}" if cell.signed else f"{cell.mean:.2f}"
    if len(cell.values) > 1:
        text += f" ± {cell.spread(ci95):.2f}"
    if cell.files and len(cell.values) not in (1, usual):
        text += f" [{len(cell.values)} seeds]"
    return text


def render(table: Table, fmt: str, ci95: bool = False) -> str:
    """The table as text in one of tabulate's formats; the best in bold where the format can show it."""
    bold = {"github": "**{}**", "latex": "\\textbf{{{}}}"}.get(fmt, "{}")
    lines = texts(table, ci95)
    for (labels, _), line, marked in zip(table.rows, lines, best_cells(table), strict=True):
        for j in marked:
            line[len(labels) + j] = bold.format(line[len(labels) + j])
    style = {"latex": "latex_raw"}.get(fmt, fmt)
    body = tabulate(lines, headers=table.header, tablefmt=style, stralign="right", disable_numparse=True)
    return "\n".join([table.title, "", body, *(["", *table.notes] if table.notes else [])])


def as_csv(found: list[Table], ci95: bool) -> str:
    """One line per cell: table, labels, column, mean, spread, number of seeds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "row", "method", "column", "mean", "spread", "seeds"])
    for table in found:
        for labels, column, cell in table.filled():
            numbers = [f"{cell.mean:.4f}", f"{cell.spread(ci95):.4f}", len(cell.values)]
            writer.writerow([table.title, labels[0], " ".join(labels[1:]), column, *numbers])
    return out.getvalue()


def as_json(runs: list[Run]) -> str:
    """Every run with what it measured."""
    keys = ("protocol", "dataset", "method", "config", "shots", "seed", "part", "source", "metrics", "finished")
    return json.dumps([{k: getattr(r, k) for k in keys} | {"file": str(r.file)} for r in runs], indent=1)


def sources(table: Table) -> str:
    """The files behind every cell, one per line."""
    lines = [f"{table.title}: files"]
    for labels, column, cell in table.filled():
        lines += [f"  {' '.join(labels)}, {column}: {file}" for file in cell.files]
    return "\n".join(lines)
