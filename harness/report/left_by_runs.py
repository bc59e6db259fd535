"""Figures of what runs leave beside their results: a router's choices, the lengths that a search found, the rounds of a
federation."""

import csv
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from harness.catalog import dataset_title
from harness.plan import in_words

from .collect import FAULTS, Run
from .tables import method_key, method_names, shots_title

TOWERS = {"vision": "picture tower", "text": "text tower"}


def file_name(title: str) -> str:
    """At most 200 bytes, which every file system takes."""
    name = "_".join("".join(c if c.isalnum() or c in "-.+" else " " for c in title).split())
    if len(name.encode()) <= 200:
        return name
    return f"{name.encode()[:180].decode(errors='ignore')}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _name_of(kind: str, run: Run) -> str:
    model, shots = f"{run.method} {run.variant} {run.source}", in_words(run.shots)
    return file_name(f"{kind} {run.protocol} {run.part} {run.dataset} {model} {shots}shots seed{run.seed}")


def router_heat_maps(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    """A heat map for every run in which scripts/inspect_router.py has left its router.json."""
    for run in runs:
        record = _router_record(run.file.parent / "router.json")
        if record:
            yield _name_of("router", run), heat_map(record["percent"], record["rows"], record["experts"])


def _router_record(file: Path) -> dict | None:
    """What inspect_router.py left, if it is whole."""
    try:
        record = json.loads(file.read_text()) if file.is_file() else None
        if not record:
            return None
        percent = np.array(record["percent"], float)
        whole = percent.shape == (len(record["rows"]), len(record["experts"])) and np.isfinite(percent).all()
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return record | {"percent": percent} if whole else None


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


def found_lengths(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    """A picture for every run whose search has left its search.json."""
    for run in runs:
        tables = _search_record(run.file.parent / "search.json")
        if tables:
            yield _name_of("search", run), lengths_picture(tables)


def _search_record(file: Path) -> dict[str, np.ndarray]:
    """Tower -> probability of each length of each block, if the record is whole; empty otherwise."""
    try:
        record = json.loads(file.read_text()) if file.is_file() else {}
        tables = {tower: np.array(own["probabilities"], float) for tower, own in record.items() if tower in TOWERS}
    except FAULTS:
        return {}
    whole = all(table.ndim == 2 and table.size and np.isfinite(table).all() for table in tables.values())
    return tables if whole else {}


def lengths_picture(tables: dict[str, np.ndarray]) -> Figure:
    """Blocks x lengths of each tower: probability of each length at the end of the search; a frame around the one kept."""
    tallest, darkest = max(map(len, tables.values())), max(float(table.max()) for table in tables.values())
    figure = Figure(figsize=(3.4 * len(tables) + 1, 0.34 * tallest + 2.2), layout="constrained")
    for axes, (tower, table) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        image = axes.imshow(table, cmap="Greys", vmin=0, vmax=darkest, aspect="auto")
        for block, length in enumerate(table.argmax(1)):
            frame = Rectangle((length - 0.5, block - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=2)
            axes.add_patch(frame)
        axes.set_xticks(range(table.shape[1]))
        axes.set_yticks(range(len(table)))
        axes.set(title=TOWERS[tower], xlabel="vectors of its context", ylabel="block")
    figure.colorbar(image, ax=figure.axes, label="probability", shrink=0.8)
    return figure


def federated_curves(runs: Sequence[Run], looks_of: Callable[..., Any]) -> Iterator[tuple[str, Figure]]:
    """Mean accuracy of the clients after each round, by dataset: a curve per method, the mean over its seeds, which are
    drawn thinly."""
    by_dataset: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    own = [run for run in runs if run.protocol == "fewshot" and run.finished and not run.validated]
    names, several = method_names(own), len({run.shots for run in own}) > 1
    for run in own:
        curve = rounds_of(run.file.parent / "rounds.csv")
        if len(curve):
            name = names[method_key(run, names)] + (f", {shots_title(run.shots or 0)}" if several else "")
            by_dataset[run.dataset][name].append(curve)
    for dataset, present in by_dataset.items():
        looks = looks_of(present)
        figure = Figure(figsize=(5.2, 4.2), layout="constrained")
        axes = figure.subplots()
        for method, curves in present.items():
            style = looks.line(method) | {"markersize": 3}
            for curve in curves:
                axes.plot(curve[:, 0], curve[:, 1], alpha=0.25, **style | {"label": None, "marker": "none"})
            shortest = min(map(len, curves))
            mean = np.mean([curve[:shortest] for curve in curves], axis=0)
            axes.plot(mean[:, 0], mean[:, 1], **style)
        axes.set(title=dataset_title(dataset), xlabel="round", ylabel="accuracy, %, mean of the clients")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside lower center", ncols=3, fontsize="small")
        yield f"rounds_{file_name(dataset_title(dataset))}", figure


def rounds_of(file: Path) -> np.ndarray:
    """(round, mean accuracy of the clients on their own kind) of each round that was tested; rounds x 2."""
    try:
        with file.open(newline="") as lines:
            rows = [(float(row["round"]), float(row["accuracy"] or "nan")) for row in csv.DictReader(lines)]
    except FAULTS:
        return np.empty((0, 2))
    return np.array([row for row in rows if all(map(math.isfinite, row))], dtype=float).reshape(-1, 2)
