"""Tables of each class's accuracy, and what it is taken for most often, from the runs' confusion.csv."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from harness.catalog import dataset_title, method_title
from trainers.core.runs import confusion

from .collect import Run
from .tables import TITLES, Cell, Table

Matrix = dict[tuple[str, str], int]


def per_class_tables(runs: Sequence[Run]) -> tuple[list[Table], list[str]]:
    """A table for each dataset, number of shots and part of a protocol, and a line for each finished run that has no
    confusion.csv: those of older versions. Raises ValueError for a file that cannot be believed."""
    groups: dict[tuple, dict[str, list[tuple[Run, Matrix]]]] = defaultdict(lambda: defaultdict(list))
    without = []
    for run in runs:
        path = run.file.parent / confusion.NAME
        if not run.finished:
            continue
        if not path.is_file():
            without.append(f"no {confusion.NAME} in {path.parent}: it was evaluated by an older version")
            continue
        shots = run.shots if run.shots is not None else ""
        tag = run.config.partition(" ")[2]
        of_method = f"{method_title(run.method)}{f' ({tag})' if tag else ''}"
        groups[run.protocol, run.dataset, run.part][f"{of_method} {shots}".strip()].append(
            (run, confusion.read(path, int(run.details["total"])))
        )
    return [_table(key, by_method) for key, by_method in groups.items()], without


def _table(key: tuple, by_method: dict[str, list[tuple[Run, Matrix]]]) -> Table:
    protocol, dataset, part = key
    matrices = [matrix for own in by_method.values() for _, matrix in own]
    pictures = Counter(_by_class(matrices[0]))
    rows = []
    for name in pictures:
        cells = [
            _cell([(run, matrix) for run, matrix in own if name in _by_class(matrix)], name)
            for own in by_method.values()
        ]
        mistaken: Counter[str] = Counter()
        for matrix in matrices:
            mistaken.update({p: n for (c, p), n in matrix.items() if c == name and p != name})
        rows.append(([name, str(pictures[name]), mistaken.most_common(1)[0][0] if mistaken else ""], cells))
    total = sum(pictures.values())
    largest, count = pictures.most_common(1)[0]
    notes = [
        f'Always saying "{largest}" would be right {100 * count / total:.2f} % of the time, guessing '
        f"{100 / len(pictures):.2f} %. The third column is what a class's pictures were most often taken for."
    ]
    title = (
        f"Each class: {dataset_title(dataset)}, {TITLES[protocol].split(':')[0].lower()}{f', {part}' if part else ''}"
    )
    header = ["class", "pictures", "taken for", *by_method]
    return Table(
        f"per_class_{protocol}_{dataset}_{part}".strip("_"), title, header, rows, [list(range(len(by_method)))], notes
    )


def _by_class(matrix: Matrix) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (name, _), count in matrix.items():
        found[name] += count
    return found


def _cell(own: list[tuple[Run, Matrix]], name: str) -> Cell:
    own = [(run, matrix) for run, matrix in own if name in _by_class(matrix)]
    own.sort(key=lambda pair: (pair[0].seed is None, pair[0].seed or 0))
    values = tuple(100 * matrix.get((name, name), 0) / _by_class(matrix)[name] for _, matrix in own)
    files: tuple[Path, ...] = tuple(run.file.parent / confusion.NAME for run, _ in own)
    return Cell(values, files, tuple(run.seed for run, _ in own))
