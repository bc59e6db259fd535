"""The literature's numbers (published.yaml) beside what was run here: published, here, difference."""

from collections.abc import Sequence
from dataclasses import replace
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
    here = _here([replace(r, on="") for r in runs if _comparable(r)], metric)  # all of one backbone
    found = []
    for name, block in yaml.safe_load(FILE.read_text()).items():
        protocol = name.split("_")[0]
        if protocol not in protocols:
            continue
        rows = []
        titles = [dataset_title(column) for column in block["columns"]]
        sources = list(dict.fromkeys(part["source"] for part in block["parts"]))
        for row, known in _by_row(block["parts"]).items():
            source_of = row.removeprefix("trained on ")
            group_title = f"trained on {dataset_title(source_of)}" if source_of != row else dataset_title(row)
            ours = [m for (t, g, m, _) in here if (t, g) == (name, group_title)]
            for method in dict.fromkeys([*known, *ours]):
                own = [here.get((name, group_title, method, c), Cell()) for c in titles]
                ran = any(cell.values for cell in own)
                values, source = known.get(method, ([], ""))
                printed = [Cell((value,)) for value in values]
                if printed:
                    rows.append(([group_title, method, f"published [{sources.index(source) + 1}]"], printed))
                if ran:
                    rows.append(([group_title, method, "here"], own))
                if printed and ran:
                    rows.append(([group_title, method, "difference"], list(map(_difference, own, printed))))
        title = f"{TITLES[protocol]}: published beside here ({BACKBONE})"
        notes = [f"[{i}] {source}." for i, source in enumerate(sources, 1)]
        found.append(Table(f"{name}_published", title, ["", "method", "", *titles], rows, [[]], notes))
    return found


def _by_row(parts: list[dict]) -> dict[str, dict[str, tuple[list[float], str]]]:
    """row -> method's title -> (its numbers, the source that they were read in)."""
    found: dict[str, dict[str, tuple[list[float], str]]] = {}
    for part in parts:
        for row, by_trainer in part.items():
            if row != "source":
                of_row = found.setdefault(row, {})
                of_row |= {method_title(trainer): (values, part["source"]) for trainer, values in by_trainer.items()}
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
