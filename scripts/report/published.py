"""The literature's numbers (published.yaml) beside what was run here: published, here, difference."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from .collect import BENCHMARKS, VARIANTS, Run
from .tables import TITLES, Cell, Table, tables

Here = dict[tuple[str, str, str, str], Cell]  # (table, row, method, column) -> cell
FILE = Path(__file__).with_name("published.yaml")


def published_tables(runs: list[Run], metric: str, protocols: Sequence[str]) -> list[Table]:
    """One table per protocol that the literature reports; empty for another metric than accuracy.

    Averages compare only when all eleven benchmarks were run: the average is over what the papers average.
    """
    if metric != "accuracy":
        return []
    here = _here([r for r in runs if r.dataset in BENCHMARKS or r.dataset in VARIANTS], metric)
    found = []
    for name, block in yaml.safe_load(FILE.read_text()).items():
        protocol = name.split("_")[0]
        if protocol not in protocols:
            continue
        source, columns = block.pop("source"), block.pop("columns")
        rows = []
        for group, methods in block.items():
            ours = [m for (t, g, m, _) in here if (t, g) == (name, group)]
            for method in dict.fromkeys([*methods, *ours]):
                known = [Cell((value,)) for value in methods[method]] if method in methods else []
                own = [here.get((name, group, method, c), Cell()) for c in columns]
                if known:
                    rows.append(([group, method, "published"], known))
                if any(cell.values for cell in own):
                    rows.append(([group, method, "here"], own))
                if known and any(cell.values for cell in own):
                    rows.append(([group, method, "difference"], list(map(_difference, own, known))))
        title = f"{TITLES[protocol]}: published beside here (ViT-B/16)"
        header = ["", "method", "", *columns]
        found.append(Table(f"{name}_published", title, header, rows, [[]], [f"Published: {source}."]))
    return found


def _difference(here: Cell, published: Cell) -> Cell:
    return Cell((here.mean - published.mean,), signed=True) if here.values else Cell()


def _here(runs: list[Run], metric: str) -> Here:
    found: Here = {}
    for table in tables(runs, metric):
        for labels, column, cell in table.filled():
            row = labels[0]
            if table.name == "fewshot":
                found[table.name, row, labels[1], column] = cell
            elif table.name == "base2new":
                method, part = column.rsplit(" ", 1)
                found[table.name, row, method, part] = cell
            elif table.source:
                found[table.name, f"trained on {table.source}", column, row.removesuffix(" (source)")] = cell
    return found
