"""Confusion matrices of few-shot runs, labelled, one for each data set and method, over all seeds."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from harness.catalog import dataset_title
from trainers.core.runs import confusion

from .collect import Run
from .tables import by_number, method_key, method_names, shots_title

MOST = 40  # classes that a figure shows: those with the most mistakes
NUMBERED = 20  # up to so many, each cell has its number


def confusion_figures(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of the runs with most shots. Raises ValueError for a confusion.csv that cannot be believed."""
    of_place: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    names = method_names(runs)
    for run in runs:
        if run.finished and run.protocol == "fewshot" and (run.file.parent / confusion.NAME).is_file():
            of_place[run.dataset, run.method, run.variant].append(run)
    for own in of_place.values():
        most = max((run.shots or 0 for run in own), key=by_number)
        own = [run for run in own if (run.shots or 0) == most]
        counts: Counter[tuple[str, str]] = Counter()
        for run in own:
            counts += Counter(confusion.read(Path(run.file).parent / confusion.NAME, int(run.details["total"])))
        title = f"{dataset_title(own[0].dataset)}, {names[method_key(own[0], names)]}"
        shots = f", {shots_title(most)}" if most else ""
        seeds = "" if own[0].seed is None else f", {len(own)} seed{'s' if len(own) > 1 else ''}"
        yield f"confusion {title}", confusion_figure(counts, f"{title}{shots}{seeds}")


def confusion_figure(counts: Counter[tuple[str, str]], title: str) -> Figure:
    """counts: (class, predicted class) -> pictures. Rows are classes, in percent of their pictures."""
    pictures = Counter[str]()
    wrong = Counter[str]()
    for (own, other), count in counts.items():
        pictures[own] += count
        if own != other:
            wrong[own] += count
            wrong[other] += count
    names = sorted({name for pair in counts for name in pair})
    shown = sorted(names, key=lambda name: -wrong[name])[:MOST]
    shown.sort()
    percent = np.array([[100 * counts[own, other] / max(1, pictures[own]) for other in shown] for own in shown])
    size = max(3.2, 0.3 * len(shown))
    figure = Figure(figsize=(size + 2.2, size + 1.9), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(percent, cmap="Greys", vmin=0, vmax=100)
    if len(shown) <= NUMBERED:
        for row, column in np.argwhere(percent >= 0.5):
            shade = "white" if percent[row, column] > 50 else "black"
            text = f"{percent[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=7)
    axes.set_xticks(range(len(shown)), shown, rotation=90, fontsize=7)
    axes.set_yticks(range(len(shown)), shown, fontsize=7)
    axes.set(xlabel="taken for", ylabel="class")
    left = f"\nthe {MOST} of {len(names)} classes with most mistakes" if len(names) > MOST else ""
    axes.set_title(f"{title}{left}", fontsize=9)
    figure.colorbar(image, label="% of the class's pictures", shrink=0.7)
    return figure
