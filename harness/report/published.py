"""The literature's numbers (published.yaml) beside what was run here: published, here, difference."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from harness.catalog import dataset_title, group, method_title

from .collect import Run
from .tables import TITLES, Cell, Table, tables

Here = dict[tuple[str, str, str, str], Cell]  # (table, row, method, column) -> cell
BACKBONE = "ViT-B/16"
FILE = Path(__file__).with_name("published.yaml")


def published_tables(runs: list[Run], metric: str, protocols: Sequence[str]) -> list[Table]:
    """One table per protocol that the literature reports; empty for another metric than accuracy.

    Averages compare only when all eleven benchmarks were run: the average is over what the papers average.
    """
    if metric != "accuracy":
        return []
    here = _here([r for r in runs if _comparable(r)], metric)
    found = []
    for name, block in yaml.safe_load(FILE.read_text()).items():
        protocol = name.split("_")[0]
        if protocol not in protocols:
            continue
        source, columns = block.pop("source"), block.pop("columns")
        rows = []
        titles = [dataset_title(column) for column in columns]
        for row, by_trainer in block.items():
            methods = {method_title(trainer): values for trainer, values in by_trainer.items()}
            source_of = row.removeprefix("trained on ")
            group_title = f"trained on {dataset_title(source_of)}" if source_of != row else dataset_title(row)
            ours = [m for (t, g, m, _) in here if (t, g) == (name, group_title)]
            for method in dict.fromkeys([*methods, *ours]):
                known = [Cell((value,)) for value in methods[method]] if method in methods else []
                own = [here.get((name, group_title, method, c), Cell()) for c in titles]
                if known:
                    rows.append(([group_title, method, "published"], known))
                if any(cell.values for cell in own):
                    rows.append(([group_title, method, "here"], own))
                if known and any(cell.values for cell in own):
                    rows.append(([group_title, method, "difference"], list(map(_difference, own, known))))
        title = f"{TITLES[protocol]}: published beside here ({BACKBONE})"
        header = ["", "method", "", *titles]
        found.append(Table(f"{name}_published", title, header, rows, [[]], [f"Published: {source}."]))
    return found


def _comparable(run: Run) -> bool:
    """Whether the papers report this: their datasets, their backbone (as far as a run records it), 16 shots except in
    the few-shot protocol, the test set."""
    compared = {*group("benchmarks"), *group("variants")}
    backbone = run.details.get("backbone", BACKBONE)
    usual = run.protocol == "fewshot" or run.shots in (16, None)
    return run.dataset in compared and backbone == BACKBONE and usual and not run.validated


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
                found[
                    table.name, f"trained on {dataset_title(table.source)}", column, row.removesuffix(" (source)")
                ] = cell
    return found
