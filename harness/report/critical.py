"""Critical-difference figures: methods by their average rank over data sets, those that cannot be told apart joined.

Friedman's test, then Nemenyi's (Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006).
"""

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from .tables import Table

ALPHA = 0.05
LEAST = 3  # data sets, and methods
NEARLY = 0.8


@dataclass(frozen=True)
class Ranking:
    """methods: best first, with their average ranks (1 is best). distance: two methods whose ranks are less apart cannot be
    told apart. p: of Friedman's test, that all are the same."""

    methods: list[str]
    ranks: list[float]
    n_datasets: int
    distance: float
    p: float

    def alike(self) -> list[tuple[int, int]]:
        """First and last place of each largest set of methods that cannot be told apart: all, where Friedman's test finds
        no difference."""
        if self.p >= ALPHA:
            return [(0, len(self.ranks) - 1)]
        ends = [max(j for j, rank in enumerate(self.ranks) if rank - first <= self.distance) for first in self.ranks]
        return [(i, j) for i, j in enumerate(ends) if j > i and (i == 0 or ends[i - 1] < j)]


def ranking(table: Table) -> Ranking | None:
    """Of a table with a row for each data set and a column for each method; None with fewer than LEAST of either.

    Methods count that were tested on nearly as many data sets as any, and data sets on which all of these were.
    """
    of_datasets = [cells for labels, cells in table.rows if not labels[0].startswith("average of")]
    tested = [sum(bool(cells[j].values) for cells in of_datasets) for j in range(len(table.header) - 1)]
    kept = [j for j, count in enumerate(tested) if count >= NEARLY * max(tested)]
    methods = [table.header[1 + j] for j in kept]
    rows = [[cells[j].mean for j in kept] for cells in of_datasets if all(cells[j].values for j in kept)]
    n, k = len(rows), len(methods)
    if n < LEAST or k < LEAST:
        return None
    values_NK = np.array(rows)
    better = values_NK if table.best is min else -values_NK
    average_K = rankdata(better, axis=1).mean(0)
    order = np.argsort(average_K, kind="stable")
    distance = studentized_range.ppf(1 - ALPHA, k, math.inf) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))
    p = float(friedmanchisquare(*values_NK.T).pvalue)
    return Ranking([methods[i] for i in order], [float(average_K[i]) for i in order], n, float(distance), p)


def critical_difference(table: Table) -> Figure | None:
    """The figure, as Demsar draws it; None where there is too little to rank."""
    found = ranking(table)
    if found is None:
        return None
    k = len(found.methods)
    joined = found.alike()
    left = (k + 1) // 2  # the better half stands on the left
    height = 0.5 + 0.16 * len(joined) + 0.26 * left
    figure = Figure(figsize=(7.2, height + 0.9), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0.3 - 0.32 * k, k + 0.7 + 0.32 * k), ylim=(-height, 0.75))
    axes.set_axis_off()
    axes.plot([1, k], [0, 0], color="black")
    for tick in range(1, k + 1):
        axes.plot([tick, tick], [0, 0.08], color="black")
        axes.text(tick, 0.14, str(tick), ha="center", fontsize=8)
    axes.plot([1, min(k, 1 + found.distance)], [0.48, 0.48], color="black", linewidth=2)
    axes.text(1, 0.56, f"critical difference {found.distance:.2f}", fontsize=8)
    below = 0.18 + 0.16 * len(joined)
    for place, (name, rank) in enumerate(zip(found.methods, found.ranks, strict=True)):
        is_left = place < left
        drop = -below - 0.26 * (place if is_left else k - 1 - place) - 0.1
        edge = 0.9 - 0.05 * k if is_left else k + 0.1 + 0.05 * k
        axes.plot([rank, rank, edge], [0, drop, drop], color="black", linewidth=0.8)
        text = f"{name} {rank:.2f} " if is_left else f" {name} {rank:.2f}"
        axes.text(edge, drop, text, ha="right" if is_left else "left", va="center", fontsize=8)
    for line, (i, j) in enumerate(joined):
        span, y = [found.ranks[i] - 0.04, found.ranks[j] + 0.04], -0.16 - 0.16 * line
        axes.plot(span, [y, y], color="#0072B2", linewidth=3)
    sure = f"p = {found.p:.2g}" if found.p >= 1e-4 else "p < 0.0001"
    axes.set_title(
        f"{table.title}: average rank over {found.n_datasets} data sets\n1 is best; joined: not to be told apart (Nemenyi, "
        f"5 %; Friedman {sure})",
        fontsize=9,
    )
    return figure
