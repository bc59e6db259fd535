"""confusion.csv of a run: how many test pictures of each class were taken for which; cells without any are left out."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from .files import csv_of, write_atomically

NAME = "confusion.csv"
HEADER = ["class", "predicted", "pictures"]
LARGEST = 2**25  # bytes
Counts = Mapping[tuple[int, int], int]  # (class, predicted class) -> pictures


def write(folder: Path, counts: Counts, classnames: Sequence[str]) -> None:
    """Writes the file into a run's folder. A name that several classes have, as in ImageNet, is followed by the label."""
    several = {name for name, count in Counter(classnames).items() if count > 1}
    names = [f"{name} ({label})" if name in several else name for label, name in enumerate(classnames)]
    rows = [(names[c], names[p], n) for (c, p), n in sorted(counts.items())]
    write_atomically(folder / NAME, csv_of([HEADER, *rows]).encode("utf-8", "surrogateescape"))


def read(path: Path, total: int) -> dict[tuple[str, str], int]:
    """(class, predicted class) -> pictures. Raises ValueError, naming the file, unless it is one of ours with `total`
    pictures."""
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST >> 20} MiB")
    try:
        header, *rows = csv.reader(io.StringIO(path.read_bytes().decode("utf-8", "surrogateescape")))
        found = {(c, p): int(n) for c, p, n in rows}
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error}): remove it, and evaluate again") from None
    if header != HEADER or len(found) < len(rows) or min(found.values(), default=0) < 0 or sum(found.values()) != total:
        raise ValueError(f"{path} does not count the {total:,} pictures of its run: remove it, and evaluate again")
    return found


def collapsed(counts: Counts, classnames: Sequence[str]) -> str:
    """What to say where every picture was taken for one class, or all are of one; empty otherwise."""
    shown, taken = ({pair[i] for pair in counts} for i in (0, 1))
    if len(classnames) < 2 or not counts:
        return ""
    if len(shown) == 1:
        (only,) = shown
        return f'every test picture is of class "{classnames[only]}": the accuracy says nothing of the others'
    if len(taken) == 1:
        (only,) = taken
        return f'every test picture was taken for "{classnames[only]}": the model tells nothing apart'
    return ""


def counted(labels: Sequence[int], predicted: Sequence[int]) -> Counter[tuple[int, int]]:
    """(class, predicted class) -> pictures."""
    return Counter(zip(labels, predicted, strict=True))
