"""Figures of the tables and of training; methods differ in marker, dash and hatch too, so that grey print will do."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .collect import Run, read_log
from .tables import Cell, Table

# Okabe and Ito's colours, which colour-blind readers can tell apart, from dark to light.
COLOURS = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"]
MARKERS, DASHES = "osD^vP*X", ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2))]
HATCHES = ["", "//", "..", "xx", "\\\\", "++", "oo", "--"]
# Methods keep their look from figure to figure; others take the looks that are left, in order.
KNOWN = ["MoCoOp", "CoOp", "LASP", "CoCoOp", "ZeroshotCLIP", "LinearProbe"]
_EPOCH = re.compile(r"^epoch \[(\d+)/(\d+)\].*?loss \S+ \(([^)]+)\).*? lr (\S+)", re.MULTILINE)


class Looks:
    """Colour, marker, dash and hatch of each method."""

    def __init__(self, methods: Iterable[str]) -> None:
        others = sorted({m for m in methods if m not in KNOWN})
        self.place = {method: i % len(COLOURS) for i, method in enumerate([*KNOWN, *others])}

    def line(self, method: str) -> dict[str, object]:
        i = self.place[method]
        return {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": DASHES[i], "markersize": 5, "label": method}

    def bar(self, method: str) -> dict[str, object]:
        i = self.place[method]
        return {"facecolor": COLOURS[i] + "aa", "hatch": HATCHES[i], "edgecolor": "black", "label": method}


def figures(tables: list[Table], runs: list[Run], metric: str) -> Iterator[tuple[str, Figure]]:
    """(file name without ending, figure) of everything that can be drawn."""
    label = {"accuracy": "accuracy, %", "macro_f1": "macro F1, %"}[metric]
    for table in tables:
        if not table.rows:
            continue
        if table.name == "fewshot":
            yield from few_shot_curves(table, label)
            yield "fewshot_bars", bars(_at_most_shots(table), label)
        elif table.name == "base2new":
            yield "base2new_scatter", base_new_scatter(table)
            yield "base2new_h", bars(_columns_of(table, "H"), "harmonic mean H, %")
        else:
            yield table.name, bars(table, label)
    yield from training_curves(runs)
    yield from router_heat_maps(runs)


def save(named: Iterable[tuple[str, Figure]], folder: Path) -> list[Path]:
    """Writes each figure as PNG and PDF; the PNG files' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in named:
        figure.savefig(folder / f"{name}.pdf")
        figure.savefig(folder / f"{name}.png", dpi=150)
        written.append(folder / f"{name}.png")
    return written


def few_shot_curves(table: Table, label: str) -> Iterator[tuple[str, Figure]]:
    """Score against shots, a curve per method; a method that does not depend on the shots is a level line."""
    shots = [int(column.split()[0]) for column in table.header[2:]]
    by_dataset: dict[str, list[tuple[str, list[Cell]]]] = defaultdict(list)
    for (dataset, method), cells in table.rows:
        by_dataset[dataset].append((method, cells))
    looks = Looks(method for (_, method), _ in table.rows)
    for dataset, methods in by_dataset.items():
        figure = Figure(figsize=(4.8, 4.2), layout="constrained")
        axes = figure.subplots()
        for method, cells in methods:
            known = [(k, c) for k, c in zip(shots, cells, strict=True) if c.values]
            if not known:
                continue
            if method.startswith("ZeroshotCLIP"):
                style = looks.line(method) | {"marker": "none"}
                axes.axhline(known[0][1].mean, **style)  # type: ignore[arg-type]
                continue
            x, means = [k for k, _ in known], [c.mean for _, c in known]
            axes.errorbar(x, means, [c.spread(False) for _, c in known], capsize=3, **looks.line(method))  # type: ignore[arg-type]
        axes.set_xscale("log", base=2)
        axes.set_xticks(shots, [str(k) for k in shots])
        axes.minorticks_off()
        axes.set(title=dataset, xlabel="labelled pictures per class", ylabel=label)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside lower center", ncols=3, fontsize="small")
        yield f"fewshot_{dataset.replace(' ', '_')}", figure


def base_new_scatter(table: Table) -> Figure:
    """New against base accuracy, a panel per dataset (and the average), with contours of equal harmonic mean."""
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
            axes.errorbar(base.mean, new.mean, new.spread(False), base.spread(False), alpha=0.85, **style)  # type: ignore[arg-type]
        if points:
            _harmonic_contours(axes)
        axes.set(title=labels[0], xlabel="base accuracy, %", ylabel="new accuracy, %")
    for axes in panels.flat[len(table.rows) :]:
        axes.set_axis_off()
    handles, names = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize="small")
    return figure


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
    return Table(table.name, table.title, header, [(r, [c[i] for i in chosen]) for r, c in table.rows], [])


def _at_most_shots(table: Table) -> Table:
    """The last column of a few-shot table, methods across."""
    methods = list(dict.fromkeys(method for (_, method), _ in table.rows))
    cells = {(dataset, method): own[-1] for (dataset, method), own in table.rows}
    datasets = dict.fromkeys(dataset for dataset, _ in cells)
    rows = [([d], [cells.get((d, m), Cell()) for m in methods]) for d in datasets]
    return Table(table.name, f"{table.title}, {table.header[-1]}", ["dataset", *methods], rows, [])


def bars(table: Table, label: str) -> Figure:
    """A group of bars per row, a bar per column, with the spread over seeds."""
    methods, n = table.header[1:], len(table.header) - 1
    looks = Looks(methods)
    figure = Figure(figsize=(max(4.5, 0.28 * n * len(table.rows) + 1.5), 3.8), layout="constrained")
    axes = figure.subplots()
    for i, method in enumerate(methods):
        filled = [(row, cells[i]) for row, (_, cells) in enumerate(table.rows) if cells[i].values]
        x = [row + 0.8 * ((i + 0.5) / n - 0.5) for row, _ in filled]
        spread = [c.spread(False) for _, c in filled]
        axes.bar(x, [c.mean for _, c in filled], 0.8 / n, yerr=spread, capsize=2, **looks.bar(method))  # type: ignore[arg-type]
    axes.set_xticks(range(len(table.rows)), [labels[0] for labels, _ in table.rows], rotation=30, ha="right")
    axes.set(title=table.title, ylabel=label)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def training_curves(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    """Mean training loss per epoch (and the learning rate), from log.txt; a figure per dataset of the few-shot protocol."""
    by_dataset: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    most = {d: max(r.shots for r in runs if r.dataset == d) for d in {r.dataset for r in runs}}
    for run in runs:
        if run.protocol == "fewshot" and run.finished and run.shots == most[run.dataset]:
            curve = loss_curve(run.file.parent / "log.txt")
            if len(curve):
                by_dataset[run.dataset][run.method].append(curve)
    for dataset, methods in by_dataset.items():
        looks = Looks(methods)
        figure = Figure(figsize=(4.5, 4.6), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        for method, curves in methods.items():
            style = looks.line(method) | {"markersize": 3}
            for i, curve in enumerate(curves):
                own = style | {"label": method if i == 0 else None}
                top.plot(curve[:, 0], curve[:, 1] / curve[0, 1], alpha=0.7, **own)  # type: ignore[arg-type]
            bottom.plot(curves[0][:, 0], curves[0][:, 2], **style | {"label": None})  # type: ignore[arg-type]
        top.set(title=f"{dataset}, {most[dataset]} shots", ylabel="loss / loss of the first epoch")
        bottom.set(xlabel="epoch", ylabel="learning rate", yscale="log")
        for axes in (top, bottom):
            axes.grid(alpha=0.3)
        top.legend(fontsize="small")
        yield f"training_{dataset}", figure


def loss_curve(log: Path) -> np.ndarray:
    """(epoch, mean loss of the epoch, learning rate) of each epoch in a log of Dassl's format; epochs x 3."""
    try:
        text = read_log(log)
    except FileNotFoundError:
        return np.empty((0, 3))
    last = {int(epoch): (float(mean), float(lr)) for epoch, _, mean, lr in _EPOCH.findall(text)}
    return np.array([(epoch, *values) for epoch, values in sorted(last.items())]).reshape(-1, 3)


def router_heat_maps(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    """A heat map for every run in which scripts/inspect_router.py has left its router.json."""
    for run in runs:
        file = run.file.parent / "router.json"
        if file.is_file():
            record = json.loads(file.read_text())
            name = "_".join(["router", run.protocol, run.part, run.dataset, f"{run.shots}shots", f"seed{run.seed}"])
            yield name.replace("__", "_"), heat_map(np.array(record["percent"]), record["rows"], record["experts"])


def heat_map(percent_RG: np.ndarray, rows: list[str], experts: list[str]) -> Figure:
    """Percent of each row's pictures (R rows) whose first expert is each of the G soft prompts."""
    R, G = percent_RG.shape
    figure = Figure(figsize=(0.5 * G + 2.5, min(0.34 * R, 30) + 2.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(percent_RG, cmap="Greys", vmin=0, vmax=100, aspect="auto")
    if R <= 40:
        for r, g in np.argwhere(percent_RG >= 0.5):
            shade = "white" if percent_RG[r, g] > 50 else "black"
            axes.text(g, r, f"{percent_RG[r, g]:.0f}", ha="center", va="center", color=shade, fontsize=8)
    axes.set_xticks(range(G), experts, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(R), rows, fontsize=8 if R <= 40 else 4)
    axes.set(xlabel="first expert (the soft prompt began as)", ylabel="pictures of")
    figure.colorbar(image, label="% of the row's pictures", shrink=0.8)
    return figure
