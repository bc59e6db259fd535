"""How good predictions are, where the folders say what the pictures show: hits, what was rejected, what is of no class."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..clip.prompts import clean_classname
from ..settings.text_files import read_pairs
from .model import Prediction

NAMES_FILE = "classnames.txt"  # in a folder of pictures: a line of folder and class name each
PARTS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")


def truth_of(paths: Sequence[str], roots: Sequence[str], classnames: Sequence[str]) -> dict[str, str]:
    """Picture -> its class, or "" for none of the classes: the nearest folder above it that is called as a class, or that
    a classnames.txt in one of `roots`, or up to two folders above one that is a part such as test/ or is named there,
    calls so, up to the root in which it lies; of a picture in none, its own folder.

    Raises ValueError where no picture lies in the folder of a class.
    """
    known = {_key(name): name for name in classnames}
    for root in roots:
        place = Path(os.path.abspath(root))
        above = [folder / NAMES_FILE for folder in place.parents[:2] if names_folders(folder / NAMES_FILE)]
        of_parts = [file for file in above if place.name in read_pairs(file) or place.name.lower() in PARTS]
        file = next((file for file in (place / NAMES_FILE, *of_parts) if file.is_file()), None)
        if file is not None:
            called = {folder: known.get(_key(name)) for folder, name in read_pairs(file).items()}
            known |= {_key(folder): name for folder, name in called.items() if name is not None}
    tops = [Path(os.path.abspath(root)) for root in roots]
    found = {}
    for path in paths:
        above = list(Path(os.path.abspath(path)).parents)
        top = next((above.index(top) for top in tops if top in above), 0)
        found[path] = next((known[_key(folder.name)] for folder in above[: top + 1] if _key(folder.name) in known), "")
    if not any(found.values()):
        folder = os.path.basename(os.path.dirname(os.path.abspath(paths[0])))
        names = ", ".join(classnames[:4])
        raise ValueError(
            f'no picture lies in a folder that is called as a class: "{folder}" is none of {names}, ...: leave out --truth'
        )
    return found


def names_folders(file: Path) -> bool:
    """Whether a classnames.txt says what folders beside it, or in the parts beside it, are called."""
    try:
        folders = read_pairs(file) if file.is_file() else {}
    except ValueError:
        return False
    places = [file.parent / part for part in ("", *PARTS, "images/train", "images/val")]
    return any((place / folder).is_dir() for place in places for folder in folders)


def _key(name: str) -> str:
    return clean_classname(name).lower()


def judged(found: Sequence[Prediction], truth: Mapping[str, str], rejected: set[str] | None, classes: int) -> list[str]:
    """Lines for people. rejected: pictures whose answer is not to count, None if none was to be. classes: that the model
    tells apart."""
    of_class = [p for p in found if truth[p.picture]]
    right = {p.picture for p in of_class if p.classes[0][0] == truth[p.picture]}
    counts = Counter(truth[p.picture] for p in of_class)
    lines = []
    asked, rejected = rejected is not None, rejected or set()
    if of_class:
        usual, most = counts.most_common(1)[0]
        lines.append(
            f"{len(of_class):,} pictures of {len(counts)} classes: {_share(len(right), len(of_class))} right, macro F1 "
            f'{macro_f1(of_class, truth):.1f} %; always "{usual}" would be right {_share(most, len(of_class))}, guessing '
            f"{100 / classes:.1f} %"
        )
    if asked and of_class:
        kept = [p for p in of_class if p.picture not in rejected]
        lines.append(
            f"rejected: {_share(len(of_class) - len(kept), len(of_class))} of them; of the others "
            f"{_share(sum(p.picture in right for p in kept), len(kept)) if kept else 'none'} right"
        )
    none = [p for p in found if not truth[p.picture]]
    if none:
        out = sum(p.picture in rejected for p in none)
        lines.append(
            f"none of these classes: {len(none):,} pictures in other folders"
            + (f", {_share(out, len(none))} rejected" if asked else "")
            + (
                f"; AUROC of the probability of the likeliest class {100 * auroc(of_class, none):.1f} %"
                if of_class
                else ""
            )
        )
    return lines


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % ({part:,})"


def macro_f1(found: Sequence[Prediction], truth: Mapping[str, str]) -> float:
    """In percent, over the classes that have pictures, as in a run's results."""
    from sklearn.metrics import f1_score  # slow to import

    own = [truth[p.picture] for p in found]
    guessed = [p.classes[0][0] for p in found]
    return 100 * f1_score(own, guessed, labels=sorted(set(own)), average="macro", zero_division=0)


def auroc(known: Sequence[Prediction], unknown: Sequence[Prediction]) -> float:
    """The probability that a picture of a class gets a surer answer than one of no class, as in open-set recognition."""
    from sklearn.metrics import roc_auc_score

    scores = [p.classes[0][1] for p in (*known, *unknown)]
    return float(roc_auc_score([1] * len(known) + [0] * len(unknown), scores))
