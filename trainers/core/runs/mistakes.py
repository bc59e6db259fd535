"""mistakes.csv of a run: the test pictures that were taken for another class, those with the surest answer first."""

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from .files import csv_of, write_atomically

NAME = "mistakes.csv"
MOST = 100  # that are kept
LARGEST = 2**22  # bytes


@dataclass(frozen=True)
class Mistake:
    """picture: its path. confidence: the probability given to `predicted`; of_class: that given to the picture's own."""

    picture: str
    classname: str
    predicted: str
    confidence: float
    of_class: float


HEADER = [field.name.replace("classname", "class") for field in fields(Mistake)]


def write(folder: Path, mistakes: Iterable[Mistake]) -> None:
    """Writes the file into a run's folder."""
    rows = [(*astuple(m)[:3], f"{m.confidence:.6f}", f"{m.of_class:.6f}") for m in mistakes]
    write_atomically(folder / NAME, csv_of([HEADER, *rows]).encode("utf-8", "surrogateescape"))


def read(path: Path) -> list[Mistake]:
    """Raises FileNotFoundError, and ValueError, naming the file, unless it is one of ours."""
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST >> 20} MiB")
    try:
        header, *rows = csv.reader(io.StringIO(path.read_bytes().decode("utf-8", "surrogateescape")))
        found = [Mistake(picture, own, other, float(p), float(q)) for picture, own, other, p, q in rows]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error}): remove it, and evaluate again") from None
    if header != HEADER or not all(0 <= m.of_class <= m.confidence <= 1 for m in found):
        raise ValueError(f"{path} lists no mistakes of a run: remove it, and evaluate again")
    return found
