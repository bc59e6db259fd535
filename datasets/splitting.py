"""Splits of people's own pictures: by shares, by folds of a cross-validation, and with groups that are never torn."""

from collections import Counter
from collections.abc import Sequence

from .few_shot import Items, random_split

SHARES = (0.5, 0.2)  # of training and validation pictures; the rest tests
SEED = 1


def split(items: Items, groups: Sequence[str]) -> tuple[Items, Items, Items]:
    """Training, validation and test pictures, 50, 20 and 30 % of each class, or of the groups, as near as they allow."""
    if not groups:
        return random_split(items, SHARES, keep_for_testing=True)
    tenths = folds(items, groups, 10)
    parts = [[number for tenth in chosen for number in tenth] for chosen in (tenths[:5], tenths[5:7], tenths[7:])]
    train, val, test = ([items[number] for number in sorted(part)] for part in parts)
    return train, val, test


def fold(items: Items, groups: Sequence[str], count: int, which: int) -> tuple[Items, Items, Items]:
    """The same with the fold number `which` (from 0) of `count` as test pictures, and 5 to 2 of the others."""
    tested = {*folds(items, groups, count)[which]}
    rest = [number for number in range(len(items)) if number not in tested]
    left, left_groups = [items[number] for number in rest], [groups[number] for number in rest] if groups else []
    if groups:
        chosen = {*folds(left, left_groups, 3)[0]}
        train = [item for number, item in enumerate(left) if number not in chosen]
        val = [item for number, item in enumerate(left) if number in chosen]
    else:
        train, val, _ = random_split(left, (SHARES[0] / sum(SHARES), 1.0))
    return train, val, [items[number] for number in sorted(tested)]


def folds(items: Items, groups: Sequence[str], count: int) -> list[list[int]]:
    """Numbers of the pictures of each fold, classes in equal shares. Raises ValueError for a class with too few."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # slow to import

    labels = [item.label for item in items]
    units = {(label, group) for label, group in zip(labels, groups, strict=True)} if groups else enumerate(labels)
    counts = Counter(unit[0] if groups else unit[1] for unit in units)
    short = next((label for label in sorted(counts) if counts[label] < (2 if groups else count)), None)
    if short is not None:
        name, kind = next(item.classname for item in items if item.label == short), "groups" if groups else "pictures"
        raise ValueError(
            f'class "{name}" has {counts[short]} {kind}, and {count} folds need {2 if groups else count}: use fewer folds, '
            "or add some"
        )
    if groups:
        n_groups = len({*groups})
        if n_groups < count:
            raise ValueError(f"{n_groups} groups cannot be dealt into {count} parts: give more, or a split")
        dealt = StratifiedGroupKFold(count, shuffle=True, random_state=SEED).split(labels, labels, groups)
    else:
        dealt = StratifiedKFold(count, shuffle=True, random_state=SEED).split(labels, labels)
    return [tested.tolist() for _, tested in dealt]
