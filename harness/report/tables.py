"""Tables of runs: few-shot, base-to-new, cross-dataset, domain generalisation, ablation; and their text."""

import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.catalog import dataset_title, datasets_in_order, draws, method_title
from harness.plan import ALL, in_words
from trainers.core.runs.files import as_cell, csv_of
from trainers.methods import methods

from .collect import ON_VALIDATION, PROTOCOLS, Run
from .uses import legend, signs

FEDERATED = "fewshot_federated"  # the table of what is not tested as others are
TITLES = {
    "fewshot": "Few-shot: all classes",
    FEDERATED: "Few-shot in a federation: each client's kind of pictures, mean over the clients",
    "base2new": "Base-to-new",
    "base2new_joint": "Base-to-new, all classes as candidates",
    "xd": "Cross-dataset",
    "dg": "Domain generalisation",
    "ablation": "Ablation: few-shot",
}
# The spread printed after a mean. std: numpy's, as CoOp's parser prints; ci95: half of Student's 95 % interval;
# dassl_ci95: Dassl's parser's formula, which treats three seeds like a large sample and is 2.7 times narrower.
SPREADS = {"std": "standard deviations", "ci95": "95 % confidence intervals (Student's t)",
           "dassl_ci95": "Dassl's 1.96 σ / √n"}  # fmt: skip
ANY_SHOTS = "any shots"


def _is_federated(method: str) -> bool:
    return method in methods() and methods()[method].federated


def half_interval(values: Sequence[float]) -> float:
    """Half the width of Student's 95 % interval for the mean; infinite for a single value."""
    from scipy.stats import t  # slow to import

    n = len(values)
    return float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / n**0.5 if n > 1 else float("inf")


@dataclass(frozen=True)
class Cell:
    """The values of one cell, one per seed (none for a method without seeds), and the files they come from."""

    values: tuple[float, ...] = ()
    files: tuple[Path, ...] = ()
    seeds: tuple[int | None, ...] = ()
    signed: bool = False

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def seeded(self) -> bool:
        """Whether there could be a spread."""
        return any(seed is not None for seed in self.seeds)

    def spread(self, kind: str = "std") -> float:
        if kind == "ci95":
            return half_interval(self.values)
        deviation = statistics.pstdev(self.values)
        return 1.96 * deviation / len(self.values) ** 0.5 if kind == "dassl_ci95" else deviation


@dataclass
class Table:
    """Rows of labels and cells. `name` is for files; `best_of`: groups of columns within which the best is marked."""

    name: str
    title: str
    header: list[str]
    rows: list[tuple[list[str], list[Cell]]]
    best_of: list[list[int]]
    notes: list[str] = field(default_factory=list)
    source: str = ""
    spread: str = ""  # what stands after its means, whatever is asked for
    best: Callable[[Iterable[float]], float] = max
    signs: dict[str, str] = field(default_factory=dict)  # behind titles of methods: what their numbers used, see notes

    def signed(self, text: str) -> str:
        """A label or a column's name with the signs of its method."""
        title = next((t for t in self.signs if text == t or text in (f"{t} base", f"{t} new", f"{t} H")), None)
        return text if title is None else title + self.signs[title] + text.removeprefix(title)

    def has(self, trainer: str) -> bool:
        """Whether one of its methods is `trainer`."""
        title = method_title(trainer)
        if self.name.startswith("fewshot"):
            return any(labels[1] == title for labels, _ in self.rows)
        return any(column in (title, f"{title} base") for column in self.header[1:])

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
    found = sorted((r for r in runs if metric in r.metrics), key=lambda r: (r.seed is None, r.seed or 0))
    values = tuple(r.metrics[metric] for r in found)
    return Cell(values, tuple(r.file for r in found), tuple(r.seed for r in found))


def method_names(runs: Sequence[Run]) -> dict[tuple[str, str], str]:
    """(method, kind) -> column title. What kinds a method has: its TAGs, and its configs where one dataset has several."""
    configs = defaultdict(set)
    for r in runs:
        # published few-shot recipes change with the shots; the parts of one base-to-new run and the targets of one source
        # belong to one model
        joined = (r.shots,) if r.protocol == "fewshot" else ()
        one_model = r.dataset if r.protocol in ("fewshot", "base2new", "ablation") else r.source
        configs[r.method, _tag(r.config), r.on, one_model, *joined].add(r.config)
    several = {method for (method, *_), found in configs.items() if len(found) > 1}
    several |= {r.method for r in runs if r.apart or r.config.endswith(ON_VALIDATION)}
    keys = {(r.method, r.variant) if r.method in several else _short_key(r) for r in runs}
    rank = {m: i for i, m in enumerate(methods())}
    ordered = sorted(keys, key=lambda k: (rank.get(k[0], len(rank)), k))
    titles = {key: method_title(key[0]) + (f" ({key[1].strip()})" if key[1] else "") for key in ordered}
    twice = [title for title in titles.values() if list(titles.values()).count(title) > 1]
    return {key: f"{title} [{key[0]}]" if title in twice else title for key, title in titles.items()}


def _tag(config: str) -> str:
    """With the space before it, as no config's name begins."""
    return config.removeprefix(config.partition(" ")[0])


def method_key(run: Run, names: dict[tuple[str, str], str]) -> tuple[str, str]:
    return (run.method, run.variant) if (run.method, run.variant) in names else _short_key(run)


def shown_in(runs: Sequence[Run]) -> Callable[[Run], tuple[str, str]]:
    """Which column of which protocol's table each of the runs stands in; of an unfinished one, nothing but itself."""
    done = [run for run in runs if run.finished]
    names = {protocol: method_names([run for run in done if run.protocol == protocol]) for protocol in PROTOCOLS}

    def column(run: Run) -> tuple[str, str]:
        key = method_key(run, names[run.protocol])
        return run.protocol, names[run.protocol].get(key, f"{method_title(run.method)} {run.variant}")

    return column


def _short_key(run: Run) -> tuple[str, str]:
    """Without its config, which others of its column may have otherwise."""
    return run.method, ": ".join(filter(None, (_tag(run.config), run.on, run.apart)))


def _ordered(names: Iterable[str], first: str = "") -> list[str]:
    rank = {d: i for i, d in enumerate(datasets_in_order())}
    return sorted(set(names), key=lambda d: (d != first, rank.get(d, len(rank)), d))


def few_shot_table(runs: list[Run], metric: str, table: str = "fewshot") -> Table:
    """Rows: datasets and methods, then the average over datasets. Columns: shots. Methods without shots have one
    value. table: its name."""
    names = method_names(runs)
    shots = sorted({r.shots for r in runs if r.shots is not None and draws(r.method)}, key=by_number)
    shots = shots or [0]  # nothing was drawn at all
    datasets = _ordered(r.dataset for r in runs)
    rows, columns = [], defaultdict(list)
    for dataset in datasets:
        for key, name in names.items():
            own = [r for r in runs if r.dataset == dataset and method_key(r, names) == key]
            if not own:
                continue
            cells = [_cell((r for r in own if r.shots == k or not draws(r.method)), metric) for k in shots]
            rows.append(([dataset_title(dataset), name], cells))
            for k, cell in zip(shots, cells, strict=True):
                columns[key, k].append(cell)
    if len(datasets) > 1:
        for key, name in names.items():
            averages = [_average(columns[key, k], len(datasets)) for k in shots]
            if any(cell.values for cell in averages):
                rows.append(([f"average of {len(datasets)}", name], averages))
    header = ["dataset", "method", *map(shots_title, shots)]
    return Table(table, TITLES[table], header, rows, [])


def by_number(shots: int | None) -> float:
    """For sorting: all pictures last."""
    return math.inf if shots == ALL else shots or 0


def shots_title(count: int) -> str:
    return {-1: "all pictures", 0: ANY_SHOTS, 1: "1 shot"}.get(count, f"{count} shots")


def _average(cells: list[Cell], expected: int) -> Cell:
    """The mean over datasets; its values are those of the seeds that all of them have, so that it has a spread too."""
    full = [cell for cell in cells if cell.values]
    if len(full) < expected:
        return Cell()
    files = tuple(f for cell in full for f in cell.files)
    shared = set(full[0].seeds).intersection(*(cell.seeds for cell in full))
    if None not in shared and all(set(cell.seeds) == shared for cell in full):
        values = tuple(statistics.fmean(c.values[c.seeds.index(seed)] for c in full) for seed in sorted(shared))  # type: ignore[type-var]
        return Cell(values, files, tuple(sorted(shared)))  # type: ignore[type-var]
    return Cell((statistics.fmean(cell.mean for cell in full),), files, (None,) if shared == {None} else ())


def base_to_new_table(runs: list[Run], metric: str, joint: bool = False) -> Table:
    """Datasets down; base, new and their harmonic mean of each method across; the average row as the papers compute it.

    joint: of the runs that had all classes as candidates.
    """
    runs = [r for r in runs if (r.part == "joint") == joint]
    names = method_names(runs)
    datasets = _ordered(r.dataset for r in runs)
    rows = []
    sums: dict[tuple, list[list[Cell]]] = defaultdict(lambda: [[], []])
    for dataset in datasets:
        cells = []
        for key in names:
            own = [r for r in runs if r.dataset == dataset and method_key(r, names) == key]
            if joint:
                base, new = (_cell(own, f"{part}_accuracy") for part in ("base", "new"))
            else:
                base, new = (_cell((r for r in own if r.part == part), metric) for part in ("base", "new"))
            cells += [base, new, _harmonic_cell(base, new, metric)]
            sums[key][0].append(base)
            sums[key][1].append(new)
        rows.append(([dataset_title(dataset)], cells))
    notes = [
        "H is the harmonic mean of the means over seeds; in the average row, of the averaged base and new accuracies, as in"
        " the papers."
    ]
    if joint:
        notes.append("An accuracy is the mean over the classes of its half.")
    if len(datasets) > 1:
        cells, h_means = [], []
        for key, name in names.items():
            base, new = (_average(part, len(datasets)) for part in sums[key])
            cells += [base, new, _harmonic_cell(base, new, metric)]
            if base.values and new.values and metric != "ece":
                per_dataset = [harmonic(b.mean, n.mean) for b, n in zip(*sums[key], strict=True)]
                h_means.append(f"{name} {statistics.fmean(per_dataset):.2f}")
        rows.append(([f"average of {len(datasets)}"], cells))
        if h_means:
            notes.append("Mean of the datasets' H: " + ", ".join(h_means) + ".")
    header = ["dataset"] + [f"{name} {part}" for name in names.values() for part in ("base", "new", "H")]
    name = "base2new_joint" if joint else "base2new"
    return Table(name, TITLES[name], header, rows, [list(range(i, 3 * len(names), 3)) for i in range(3)], notes)


def _harmonic_cell(base: Cell, new: Cell, metric: str) -> Cell:
    """H of the means over seeds, as in papers: one value without a spread; none for error metrics."""
    if metric == "ece":
        return Cell()
    return Cell((harmonic(base.mean, new.mean),), seeds=(None,)) if base.values and new.values else Cell()


def transfer_table(runs: list[Run], metric: str, protocol: str) -> Table:
    """Targets down, methods across, the source first; the average is over the targets, without the source."""
    names = method_names(runs)
    source = runs[0].source
    targets = _ordered((r.part for r in runs), first=source)
    rows, columns = [], defaultdict(list)
    for target in targets:
        cells = []
        for key in names:
            cell = _cell((r for r in runs if r.part == target and method_key(r, names) == key), metric)
            cells.append(cell)
            if target != source:
                columns[key].append(cell)
        name = dataset_title(target)
        rows.append(([f"{name} (source)" if target == source else name], cells))
    others = len(targets) - (source in targets)
    if others > 1:
        rows.append(([f"average of {others}"], [_average(columns[key], others) for key in names]))
    title = f"{TITLES[protocol]}, trained on {dataset_title(source)}"
    return Table(
        f"{protocol}_from_{source}", title, ["target", *names.values()], rows, [list(range(len(names)))], source=source
    )


def ablation_table(runs: list[Run], metric: str) -> Table:
    """Rows: the changed setting. Columns: datasets."""
    datasets = _ordered(r.dataset for r in runs)
    changes = sorted({(r.part, r.method, r.variant) for r in runs}, key=lambda change: (change[0] != "full", change))
    named = len({change[1:] for change in changes}) > 1
    rows = [
        (
            [f"{part} ({method} {config})" if named else part],
            [
                _cell((r for r in runs if (r.part, r.method, r.variant, r.dataset) == (*change, d)), metric)
                for d in datasets
            ],
        )
        for change in changes
        for part, method, config in [change]
    ]
    shots = runs[0].shots or 0
    whose = ", ".join(method_title(method) for method in dict.fromkeys(method for _, method, _ in changes))
    title = f"Ablation of {whose}: few-shot, {shots_title(shots)}"
    return Table(
        "ablation", title, ["change", *map(dataset_title, datasets)], rows, [[j] for j in range(len(datasets))]
    )


def _put_signs(table: Table, runs: list[Run]) -> None:
    """Marks the methods whose numbers used more than the shots and the names, and says below what; and which backbone those
    have that name none, where others do."""
    names, found = method_names(runs), signs(runs)
    for run in runs:
        title = names[method_key(run, names)]
        sign = found[run.protocol, run.method, run.variant]
        if sign:
            table.signs[title] = "".join(dict.fromkeys(table.signs.get(title, "") + sign))
    table.notes += legend(runs)
    if any(run.on for run in runs):
        usual = next((str(run.details.get("backbone", "")) for run in runs if run.identity and not run.on), "")
        table.notes += [f"Methods that name no backbone have {usual}."] if usual else []


def tables(runs: list[Run], metric: str) -> list[Table]:
    """One table per protocol (source, number of shots) that has finished runs."""
    found = []
    for protocol in PROTOCOLS:
        own = [r for r in runs if r.protocol == protocol and r.finished]
        if protocol == "fewshot":
            in_federations = [r for r in own if _is_federated(r.method)]
            for name, some in (("fewshot", [r for r in own if r not in in_federations]), (FEDERATED, in_federations)):
                if some:
                    found.append(few_shot_table(some, metric, name))
                    _put_signs(found[-1], some)
            continue
        several = sorted({r.shots for r in own if r.shots is not None}, key=by_number)
        counts: list[int | None] = [*several] or [None] * bool(own)
        for shots in counts:
            of_shots = [r for r in own if r.shots in (shots, None)]
            if protocol == "base2new":
                kinds = {r.part == "joint" for r in of_shots} - ({True} if metric != "accuracy" else set())
                made = [base_to_new_table(of_shots, metric, joint) for joint in sorted(kinds)]
            elif protocol == "ablation":
                made = [ablation_table(of_shots, metric)]
            else:
                sources = _ordered(r.source for r in of_shots)
                made = [transfer_table([r for r in of_shots if r.source == s], metric, protocol) for s in sources]
            for table in made:
                _put_signs(table, of_shots)
                if len(counts) > 1:
                    table.name += f"_{in_words(shots)}shots"
                    table.title += f", {shots_title(shots or 0)}"
            found += made
    if metric == "ece":
        for table in found:
            table.best = min
            table.title += ", expected calibration error"
            table.notes = [note for note in table.notes if not note.startswith("H is")]
            table.notes.append("Expected calibration error in percent, 15 bins: less is better.")
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
                best = table.best(cells[j].mean for j in filled)
                marked |= {j for j in filled if cells[j].mean == best}
        if not table.best_of:  # methods go down: the best of each column among the rows of one dataset
            for j, cell in enumerate(cells):
                rivals = [row[j].mean for row in by_label[labels[0]] if row[j].values]
                if cell.values and len(rivals) > 1 and cell.mean == table.best(rivals):
                    marked.add(j)
        found.append(marked)
    return found


def texts(table: Table, spread: str = "std") -> list[list[str]]:
    """Each row's labels (a repeated first one left empty) and cells as mean ± spread, with the seeds where they differ."""
    spread = table.spread or spread
    usual = max((len(c.values) for _, cells in table.rows for c in cells if c.seeded), default=1)
    lines = []
    for i, (labels, cells) in enumerate(table.rows):
        repeated = i > 0 and table.rows[i - 1][0][0] == labels[0] and len(labels) > 1
        shown = [table.signed(label) for label in (["", *labels[1:]] if repeated else labels)]
        lines.append(shown + [_text(cell, usual, spread) for cell in cells])
    return lines


def _text(cell: Cell, usual: int, spread: str) -> str:
    if not cell.values:
        return "-"
    text = f"{cell.mean:+.2f}" if cell.signed else f"{cell.mean:.2f}"
    if len(cell.values) > 1:
        text += f" ± {cell.spread(spread):.2f}"
    if cell.seeded and len(cell.values) != usual:
        text += f" [{len(cell.values)} seed{'s' if len(cell.values) > 1 else ''}]"
    return text


def render(table: Table, fmt: str, spread: str = "std") -> str:
    """The table as text in one of tabulate's formats, or in LaTeX; the best in bold where the format can show it."""
    if fmt == "latex":
        return latex(table, spread)
    bold = {"github": "**{}**"}.get(fmt, "{}")
    header, *lines = [
        [text.replace("|", "\\|") if fmt == "github" else text for text in line]
        for line in (map(table.signed, table.header), *texts(table, spread))
    ]
    for (labels, _), line, marked in zip(table.rows, lines, best_cells(table), strict=True):
        for j in marked:
            line[len(labels) + j] = bold.format(line[len(labels) + j])
    body = tabulate(lines, headers=header, tablefmt=fmt, stralign="right", disable_numparse=True)
    return "\n".join([table.title, "", body, *(["", *table.notes] if table.notes else [])])


LINES_OF_A_PAGE = 42  # in LaTeX's article
_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
          "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "σ": r"$\sigma$", "√": r"$\surd$",
          "<": r"\textless{}", ">": r"\textgreater{}", "\N{MINUS SIGN}": "$-$",
          "†": r"\textdagger{}", "‡": r"\textdaggerdbl{}", "§": r"\S{}", "¶": r"\P{}"}  # fmt: skip


def escaped(text: str) -> str:
    """`text` as LaTeX shows it."""
    return "".join(_LATEX.get(character, character) for character in text)


def latex(table: Table, spread: str = "std") -> str:
    """The table as a booktabs float with caption and label; base-to-new as papers print it, a block per dataset."""
    lines = texts(table, spread)
    rows = []
    for (labels, _), line, marked in zip(table.rows, lines, best_cells(table), strict=True):
        cells = [_number(text) for text in line[len(labels) :]]
        for j in marked:
            cells[j] = rf"\textbf{{{cells[j]}}}"
        rows.append((line[: len(labels)], cells))
    if table.name.startswith("base2new") and table.header[3::3] and all(c.endswith(" H") for c in table.header[3::3]):
        methods = [column.removesuffix(" base") for column in table.header[1::3]]
        columns, header = "lrrr", ["Method", "Base", "New", "H"]
        blocks = [
            [rf"\multicolumn{{4}}{{l}}{{\emph{{{escaped(labels[0])}}}}}"]
            + [" & ".join([escaped(table.signed(m)), *cells[3 * i : 3 * i + 3]]) for i, m in enumerate(methods)]
            for labels, cells in rows
        ]
    else:
        n_labels = len(table.rows[0][0]) if table.rows else 1
        columns, header = "l" * n_labels + "r" * (len(table.header) - n_labels), table.header
        blocks = []
        for labels, cells in rows:
            if not blocks or (labels[0] and n_labels > 1):
                blocks.append([])
            blocks[-1].append(" & ".join([*map(escaped, labels), *cells]))
    body = "\n\\midrule\n".join("\n".join(f"{line} \\\\" for line in block) for block in blocks)
    varies = any(len(cell.values) > 1 for _, cells in table.rows for cell in cells)
    spreads = [f"Means ± {SPREADS[spread]}."] if varies and not table.spread else []
    caption = escaped(" ".join([f"{table.title}.", *table.notes, *spreads]))
    named = rf"\caption{{{caption}}}", rf"\label{{tab:{re.sub('[^A-Za-z0-9-]', '-', table.name)}}}"
    head = r"\toprule", " & ".join(escaped(table.signed(column)) for column in header) + r" \\", r"\midrule"
    if body.count("\n") > LINES_OF_A_PAGE:
        long = [r"{\footnotesize\setlength{\tabcolsep}{3pt}", rf"\begin{{longtable}}{{{columns}}}", *named, r"\\"]
        long += [*head, r"\endfirsthead", *head, r"\endhead", body, r"\bottomrule", r"\end{longtable}}"]
        return "\n".join(long)
    fits = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    begin, end = (r"\begin{table}", r"\centering", *named, fits), (r"\bottomrule", r"\end{tabular}}", r"\end{table}")
    return "\n".join([*begin, rf"\begin{{tabular}}{{{columns}}}", *head, body, *end])


def _number(text: str) -> str:
    """A cell as LaTeX shows it, with a minus in the place of a hyphen, and a dash where there is nothing."""
    return "--" if text == "-" else escaped(text.replace("-", "\N{MINUS SIGN}"))


def paired(table: Table, trainer: str) -> Table:
    """Each method's difference from `trainer`, seed by seed, where both have the same seeds; with Student's interval."""
    title = method_title(trainer)
    rows: list[tuple[list[str], list[Cell]]] = []
    if table.name in ("fewshot", FEDERATED):
        reference = {labels[0]: cells for labels, cells in table.rows if labels[1] == title}
        for labels, cells in table.rows:
            if labels[1] != title and labels[0] in reference:
                rows.append((labels, list(map(_paired_cell, cells, reference[labels[0]]))))
        header = table.header
    else:
        columns = table.header[1:]
        part_of = [c.rsplit(" ", 1)[-1] if table.name.startswith("base2new") else "" for c in columns]
        method_of = [c.rsplit(" ", 1)[0] if table.name.startswith("base2new") else c for c in columns]
        kept = [j for j in range(len(columns)) if method_of[j] != title and part_of[j] != "H"]
        there = {part: j for j, (part, m) in enumerate(zip(part_of, method_of, strict=True)) if m == title}
        for labels, cells in table.rows:
            if there:
                rows.append((labels, [_paired_cell(cells[j], cells[there[part_of[j]]]) for j in kept]))
        header = [table.header[0], *(columns[j] for j in kept)]
    note = f"Mean over seeds of the difference from {title} with the same seed, ± half of Student's 95 % interval."
    return replace(table, name=f"{table.name}_paired", title=f"{table.title}: difference from {title}", header=header,
                   rows=rows, best_of=[[]], notes=[note], spread="ci95")  # fmt: skip


def _paired_cell(ours: Cell, reference: Cell) -> Cell:
    if not ours.values or not reference.values:
        return Cell()
    # an average over unlike seeds has none to pair by
    theirs = dict(zip(reference.seeds, reference.values, strict=False))
    pairs = {s: v - theirs[s if reference.seeded else None] for s, v in zip(ours.seeds, ours.values, strict=False)
             if (s if reference.seeded else None) in theirs}  # fmt: skip
    return Cell(tuple(pairs.values()), (), tuple(pairs), signed=True)


def as_csv(found: list[Table], spread: str) -> str:
    """One line per cell: table, labels, column, mean, spread, number of seeds."""
    rows: list[list[Any]] = [["table", "row", "method", "column", "mean", "spread", "seeds"]]
    for table in found:
        for labels, column, cell in table.filled():
            width = f"{cell.spread(table.spread or spread):.4f}" if len(cell.values) > 1 else ""
            seeds = len(cell.values) if cell.seeded else 0
            words = map(as_cell, (table.title, labels[0], " ".join(labels[1:]), column))
            rows.append([*words, f"{cell.mean:.4f}", width, seeds])
    return csv_of(rows)


def as_json(runs: list[Run]) -> str:
    """Every run with what it measured."""
    keys = ("protocol", "dataset", "method", "config", "on", "apart", "shots", "seed", "part", "source", "metrics",
            "finished")  # fmt: skip
    return json.dumps([{k: getattr(r, k) for k in keys} | {"file": str(r.file)} for r in runs], indent=1)


def sources(table: Table) -> str:
    """The files behind every cell, one per line."""
    lines = [f"{table.title}: files"]
    for labels, column, cell in table.filled():
        lines += [f"  {' '.join(labels)}, {column}: {file}" for file in cell.files]
    return "\n".join(lines)
