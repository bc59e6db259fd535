"""Figures of the tables and of training. Methods also differ in marker, dash and hatch, so figures work in grey."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.catalog import dataset_title, method_title
from trainers.methods import methods

from .collect import Run, epochs_of_log, logs_of, read_log
from .confusions import confusion_figures
from .critical import critical_difference
from .left_by_runs import federated_curves, file_name, found_lengths, router_heat_maps
from .tables import ANY_SHOTS, FEDERATED, Cell, Table, by_number, shots_title

matplotlib.rcParams["text.parse_math"] = False  # a dollar in a name is a dollar

# Okabe and Ito's colours, which colour-blind readers can tell apart, from dark to light.
COLOURS = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"]
# the last ones are stars of so many points, some of them upside down
MARKERS: list[Any] = [*"osD^vP*Xphd<>8H.", (4, 1, 0), (6, 1, 0), (8, 1, 0), (3, 1, 0),
                      (5, 1, 180), (3, 1, 180), (12, 1, 0), (4, 1, 45), (7, 1, 0), (9, 1, 0), (10, 1, 0),
                      (7, 0, 0), (9, 0, 0), (11, 1, 0), (5, 0, 180), (3, 2, 0),
                      (4, 2, 0), (5, 2, 0), (6, 2, 0), (8, 2, 0), (3, 2, 180), (5, 2, 180)]  # fmt: skip
DASHES: list[Any] = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2))]
HATCHES = ["", "//", "..", "xx", "\\\\", "++", "oo", "--"]
# Methods keep their look from figure to figure; others take the looks that are left, in order.
KNOWN = [method_title(t) for t in ("MoCoOp", "CoOp", "LASP", "CoCoOp", "ZeroshotCLIP", "LinearProbe")]
LEVEL = {r.title for r in methods().values() if not r.draws}  # methods without shots


class Looks:
    """Colour, marker, dash and hatch of each method."""

    def __init__(self, methods: Iterable[str]) -> None:
        others = sorted({m for m in methods if m not in KNOWN})
        self.place = {method: i for i, method in enumerate([*KNOWN, *others])}

    def _turn(self, method: str) -> tuple[int, int]:
        """Where its colour stands, and its dash and hatch: from the second turn of the colours on, not the same again."""
        i = self.place[method]
        return i % len(COLOURS), (i + i // len(COLOURS)) % len(DASHES)

    def line(self, method: str) -> dict[str, object]:
        (i, j), marker = self._turn(method), MARKERS[self.place[method] % len(MARKERS)]
        return {"color": COLOURS[i], "marker": marker, "linestyle": DASHES[j], "markersize": 5, "label": method}

    def bar(self, method: str) -> dict[str, object]:
        i, j = self._turn(method)
        return {"facecolor": COLOURS[i] + "aa", "hatch": HATCHES[j], "edgecolor": "black", "label": method}


def figures(tables: list[Table], runs: list[Run], metric: str, per_class: bool = False) -> Iterator[tuple[str, Figure]]:
    """(file name without ending, figure) of everything that can be drawn; per_class: with confusion matrices."""
    label = {"accuracy": "accuracy, %", "macro_f1": "macro F1, %", "ece": "calibration error, %"}[metric]
    for table in tables:
        if not table.rows or table.name.endswith("_paired") or table.name.startswith("per_class"):
            continue
        if table.name in ("fewshot", FEDERATED):
            if table.header[2:] != [ANY_SHOTS] and len(table.header) > 3:  # of one number of shots, the points say more
                yield from few_shot_curves(table, label)
            yield from _drawn(f"{table.name}_most_shots", dots(_at_most_shots(table), label))
            yield from _drawn(f"{table.name}_ranks", critical_difference(_at_most_shots(table)))
        elif table.name.startswith("base2new"):
            yield f"{table.name}_scatter", base_new_scatter(table, label)
            yield from _drawn(f"{table.name}_h", dots(_columns_of(table, "H"), "harmonic mean H, %"))
            yield from _drawn(f"{table.name}_ranks", critical_difference(_columns_of(table, "H")))
        else:
            yield from _drawn(file_name(table.name), dots(table, label))
    yield from training_curves(runs)
    yield from router_heat_maps(runs)
    yield from found_lengths(runs)
    yield from federated_curves(runs, Looks)
    if per_class:
        for name, figure in confusion_figures(runs):
            yield file_name(name), figure


def _drawn(name: str, figure: Figure | None) -> Iterator[tuple[str, Figure]]:
    """A figure with its name, where there was anything to draw."""
    if figure is not None:
        yield name, figure


def save(named: Iterable[tuple[str, Figure]], folder: Path) -> list[Path]:
    """Writes each figure as PNG, PDF and SVG; the PNG files' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in named:
        figure.savefig(folder / f"{name}.pdf")
        figure.savefig(folder / f"{name}.svg")
        figure.savefig(folder / f"{name}.png", dpi=150)
        written.append(folder / f"{name}.png")
    return written


def few_shot_curves(table: Table, label: str) -> Iterator[tuple[str, Figure]]:
    """Score against shots, a curve per method; a method that does not depend on the shots is a level line."""
    numbered = [(j, int(c.split()[0])) for j, c in enumerate(table.header[2:]) if c.split()[0].isdigit()]
    shots = [count for _, count in numbered]
    by_dataset: dict[str, list[tuple[str, list[Cell]]]] = defaultdict(list)
    for (dataset, method), cells in table.rows:
        by_dataset[dataset].append((method, [cells[j] for j, _ in numbered]))
    looks = Looks(method for (_, method), _ in table.rows)
    for dataset, present in by_dataset.items():
        figure = Figure(figsize=(4.8, 4.2), layout="constrained")
        axes = figure.subplots()
        for method, cells in present:
            known = [(k, c) for k, c in zip(shots, cells, strict=True) if c.values]
            if not known:
                continue
            if method in LEVEL:
                style = looks.line(method) | {"marker": "none"}
                axes.axhline(known[0][1].mean, **style)  # type: ignore[arg-type]
                continue
            x, means = [k for k, _ in known], [c.mean for _, c in known]
            axes.errorbar(x, means, [c.spread() for _, c in known], capsize=3, **looks.line(method))  # type: ignore[arg-type]
            alone = [(k, c.mean) for k, c in known if of_one_seed(c)]
            axes.plot(*zip(*alone, strict=True), **OF_ONE_SEED) if alone else None  # type: ignore[arg-type]
        axes.set_xscale("log", base=2)
        axes.set_xticks(shots, [str(k) for k in shots])
        axes.minorticks_off()
        axes.set(title=dataset, xlabel="labelled pictures per class", ylabel=label)
        axes.grid(alpha=0.3)
        note = what_bars_are(c for _, cells in present for c in cells)
        figure.legend(loc="outside lower center", ncols=3, fontsize="small", title=note, title_fontsize="x-small")
        yield f"{table.name}_{file_name(dataset)}", figure


def base_new_scatter(table: Table, label: str) -> Figure:
    """New against base classes, a panel per dataset (and the average), with contours of equal harmonic mean where more is
    better."""
    methods = [column.removesuffix(" base") for column in table.header[1::3]]
    looks = Looks(methods)
    across = 2 if len(table.rows) in (2, 4) else min(3, len(table.rows))
    down = -(-len(table.rows) // across)
    figure = Figure(figsize=(3.6 * across, 3.4 * down + 0.6), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    for axes, (labels, cells) in zip(panels.flat, table.rows, strict=False):
        points = [
            (m, cells[3 * i], cells[3 * i + 1])
            for i, m in enumerate(methods)
            if cells[3 * i].values and cells[3 * i + 1].values
        ]
        for method, base, new in points:
            style = looks.line(method) | {"linestyle": "none", "markersize": 8}
            axes.errorbar(base.mean, new.mean, new.spread(), base.spread(), alpha=0.85, **style)  # type: ignore[arg-type]
            if of_one_seed(base) or of_one_seed(new):
                axes.plot(base.mean, new.mean, **OF_ONE_SEED)  # type: ignore[arg-type]
        if points and table.best is max:
            _harmonic_contours(axes)
        axes.set(title=labels[0], xlabel=f"base {label}", ylabel=f"new {label}")
    for axes in panels.flat[len(table.rows) :]:
        axes.set_axis_off()
    _legend(figure, list(panels.flat[: len(table.rows)]), table)
    return figure


def _legend(figure: Figure, panels: list[Axes], table: Table) -> None:
    """What the panels show, each method once."""
    entries: dict[str, object] = {}
    for axes in panels:
        entries |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    note = what_bars_are(c for _, cells in table.rows for c in cells)
    figure.legend(  # type: ignore[call-overload]
        entries.values(), entries.keys(), loc="outside lower center", ncols=3, fontsize="small", title=note,
        title_fontsize="x-small",
    )  # fmt: skip


def _harmonic_contours(axes: Axes) -> None:
    """Over the whole panel, which is widened to leave room around what is drawn, and to six points at least."""
    limits = []
    for low, high in (axes.get_xlim(), axes.get_ylim()):
        middle, reach = (low + high) / 2, max(3.0, 0.65 * (high - low))
        limits.append((max(0.1, middle - reach), min(100.0, middle + reach)))
    base, new = np.meshgrid(*(np.linspace(low, high, 100) for low, high in limits))
    lines = axes.contour(base, new, 2 * base * new / (base + new), levels=6, colors="#888888", linewidths=0.7)
    axes.clabel(lines, fmt="H %g", fontsize=7)
    axes.set(xlim=limits[0], ylim=limits[1])


def _columns_of(table: Table, part: str) -> Table:
    """The columns "<method> <part>" of a base-to-new table, named by the method alone."""
    chosen = [i for i, column in enumerate(table.header[1:]) if column.endswith(f" {part}")]
    header = [table.header[0], *(table.header[1 + i].removesuffix(f" {part}") for i in chosen)]
    rows = [(labels, [cells[i] for i in chosen]) for labels, cells in table.rows]
    return Table(table.name, table.title, header, rows, [], best=table.best)


def _at_most_shots(table: Table) -> Table:
    """The last column of a few-shot table, methods across."""
    methods = list(dict.fromkeys(method for (_, method), _ in table.rows))
    cells = {(dataset, method): own[-1] for (dataset, method), own in table.rows}
    datasets = dict.fromkeys(dataset for dataset, _ in cells)
    rows = [([d], [cells.get((d, m), Cell()) for m in methods]) for d in datasets]
    title = f"{table.title}, {table.header[-1]}"
    return Table(table.name, title, ["dataset", *methods], rows, [], best=table.best)


def dots(table: Table, label: str) -> Figure | None:
    """A panel per row with an axis of its own, on which small differences show; a point per column, with its spread."""
    methods = table.header[1:]
    looks = Looks(methods)
    rows = [(labels[0], cells) for labels, cells in table.rows if any(c.values for c in cells)]
    if not rows:
        return None
    across = min(4, max(1, len(rows)))
    down = -(-len(rows) // across)
    figure = Figure(figsize=(max(4.6, 2.3 * across), 2.5 * down + 1.0), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    for axes, (name, cells) in zip(panels.flat, rows, strict=False):
        for x, (method, cell) in enumerate(zip(methods, cells, strict=True)):
            if not cell.values:
                continue
            style = looks.line(method) | {"linestyle": "none", "markersize": 7}
            axes.errorbar(x, cell.mean, cell.spread(), capsize=3, **style)  # type: ignore[arg-type]
            if of_one_seed(cell):
                axes.plot(x, cell.mean, **OF_ONE_SEED)  # type: ignore[arg-type]
        axes.set(title=name, xticks=[], xlim=(-0.6, len(methods) - 0.4))
        axes.grid(axis="y", alpha=0.3)
    for axes in panels.flat[len(rows) :]:
        axes.set_axis_off()
    figure.suptitle(table.title, fontsize="medium")
    figure.supylabel(label, fontsize="medium")
    _legend(figure, list(panels.flat[: len(rows)]), table)
    return figure


# drawn over a point that stands on a single seed
OF_ONE_SEED = {
    "marker": "o",
    "markersize": 13,
    "markerfacecolor": "none",
    "markeredgecolor": "#D55E00",
    "linestyle": "none",
}


def of_one_seed(cell: Cell) -> bool:
    """Whether it has no spread for that reason, and is circled."""
    return cell.seeded and len(cell.values) == 1


def what_bars_are(cells: Iterable[Cell]) -> str:
    """What the bars show and over how many seeds; cells of one seed have none and are circled."""
    cells = list(cells)
    counts = sorted({len(c.values) for c in cells if c.seeded and c.values})
    if not counts:
        return "one value each, no seeds"
    several = [str(n) for n in counts if n > 1]
    parts = [f"bars: ± standard deviation over {' or '.join(several)} seeds"] if several else []
    return "; ".join(parts + (["circled: one seed"] if any(map(of_one_seed, cells)) else []))


def training_curves(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    """Mean training loss per epoch, from the logs; a figure per dataset of the few-shot protocol, a panel per method and
    its settings, since these minimise different things."""
    by_dataset: dict[str, dict[tuple[str, str], list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    few_shot = [r for r in runs if r.protocol == "fewshot" and r.finished and r.shots is not None]
    most = {d: max((r.shots for r in few_shot if r.dataset == d), key=by_number) for d in {r.dataset for r in few_shot}}
    for run in few_shot:
        if run.shots == most[run.dataset]:
            curve = loss_curve([run.file] if run.file.suffix != ".json" else logs_of(run.file.parent))
            if len(curve):
                by_dataset[run.dataset][method_title(run.method), run.variant].append(curve)
    for dataset, present in by_dataset.items():
        looks = Looks(method for method, _ in present)
        across = min(3, len(present))
        down = -(-len(present) // across)
        figure = Figure(figsize=(3.2 * across + 0.6, 2.7 * down + 0.5), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False)
        titles = Counter(method for method, _ in present)
        for axes, ((method, settings), curves) in zip(panels.flat, present.items(), strict=False):
            shown = f"{method} {settings}" if titles[method] > 1 else method
            for curve in curves:
                axes.plot(curve[:, 0], curve[:, 1], alpha=0.7, **looks.line(method) | {"markersize": 3})  # type: ignore[arg-type]
            axes.set_title(f"{shown}, {len(curves)} seed{'s' if len(curves) > 1 else ''}", fontsize="medium", wrap=True)
            axes.set_xlabel("epoch")
            axes.grid(alpha=0.3)
        for axes in panels.flat[len(present) :]:
            axes.set_axis_off()
        figure.suptitle(
            f"{dataset_title(dataset)}, {shots_title(most[dataset] or 0)}: mean training loss", fontsize="medium"
        )
        yield f"training_{file_name(dataset_title(dataset))}", figure


def loss_curve(logs: Iterable[Path]) -> np.ndarray:
    """(epoch, mean loss of the epoch) of each epoch in logs of Dassl's format, of which later ones count; epochs x 2."""
    last = {}
    for log in logs:
        try:
            text = read_log(log)
        except OSError:
            continue
        for step in epochs_of_log(text):
            mean = _number(step["mean"])
            if math.isfinite(mean):
                last[int(step["epoch"])] = mean
    return np.array(sorted(last.items()), dtype=float).reshape(-1, 2)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
