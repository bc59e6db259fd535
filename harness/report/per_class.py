"""Tables of each class's accuracy, and what it is taken for most often, from the runs' confusion.csv."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from harness.catalog import dataset_title
from harness.plan import in_words
from trainers.core.runs import confusion
from trainers.core.runs.files import printable

from .collect import Run
from .tables import TITLES, Cell, Table, method_key, method_names


@dataclass(frozen=True)
class Counted:
    """A run, its confusion matrix by class and predicted class, and the pictures of each class."""

    run: Run
    matrix: dict[tuple[str, str], int]
    pictures: Counter[str]


def per_class_tables(runs: Sequence[Run]) -> tuple[list[Table], list[str]]:
    """A table for each dataset and part of a protocol, and a line for each finished run that has no confusion.csv: those
    of older versions. Raises ValueError for a file that cannot be believed."""
    groups: dict[tuple, dict[str, list[Counted]]] = defaultdict(lambda: defaultdict(list))
    without, names = [], method_names(runs)
    for run in runs:
        path = run.file.parent / confusion.NAME
        if not run.finished:
            continue
        if not path.is_file():
            without.append(f"no {confusion.NAME} in {path.parent}: it was evaluated by an older version, or by clients")
            continue
        shots = "" if run.shots is None else in_words(run.shots)
        matrix = confusion.read(path, int(run.details["total"]))
        pictures: Counter[str] = Counter()
        for (name, _), count in matrix.items():
            pictures[name] += count
        place = run.protocol, run.dataset, run.part, run.source
        groups[place][f"{names[method_key(run, names)]} {shots}".strip()].append(Counted(run, matrix, pictures))
    return [_table(place, by_method) for place, by_method in groups.items()], without


def _table(place: tuple[str, str, str, str], by_method: dict[str, list[Counted]]) -> Table:
    protocol, dataset, part, _ = place
    counted = [one for own in by_method.values() for one in own]
    pictures = Counter[str]()
    for own in by_method.values():
        pictures |= _pictures(own)
    mistaken: dict[str, Counter[str]] = defaultdict(Counter)
    for one in counted:
        for (name, predicted), count in one.matrix.items():
            if name != predicted:
                mistaken[name][predicted] += count
    rows = []
    for name in pictures:
        taken_for = mistaken[name].most_common(1)[0][0] if mistaken[name] else ""
        words = [printable(name), str(pictures[name]), printable(taken_for)]
        rows.append((words, [_cell(own, name) for own in by_method.values()]))
    largest, count = pictures.most_common(1)[0]
    guessing = 100 / counted[0].run.details.get("n_classes", len(pictures))
    notes = [
        f'Always saying "{printable(largest)}" would be right {100 * count / pictures.total():.2f} % of the time, guessing '
        f"{guessing:.2f} %. The third column is what a class's pictures were most often taken for."
    ]
    kind = TITLES[protocol].split(":")[0].lower()
    title = f"Each class: {dataset_title(dataset)}, {kind}{f', {part}' if part else ''}"
    header = ["class", "pictures", "taken for", *by_method]
    name = "_".join(["per_class", *filter(None, place)])
    return Table(name, title, header, rows, [list(range(len(by_method)))], notes)


def _pictures(own: list[Counted]) -> Counter[str]:
    """Test pictures of each class: those of all folds of a cross-validation, else those that each run has."""
    found = Counter[str]()
    for one in own:
        in_folds = one.run.identity is not None and one.run.identity.settings.get("DATASET.FOLDS")
        found = found + one.pictures if in_folds else found | one.pictures
    return found


def _cell(own: list[Counted], name: str) -> Cell:
    """Accuracies of a class, one for each run that has pictures of it."""
    own = [one for one in own if one.pictures[name]]
    own.sort(key=lambda one: (one.run.seed is None, one.run.seed or 0))
    values = tuple(100 * one.matrix.get((name, name), 0) / one.pictures[name] for one in own)
    files = tuple(one.run.file.parent / confusion.NAME for one in own)
    return Cell(values, files, tuple(one.run.seed for one in own))
