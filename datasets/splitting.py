"""Splits of people's own pictures: by shares, by folds of a cross-validation, and with groups that are never torn."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from .few_shot import Items, random_split

SHARES = {"train": 0.5, "test": 0.3, "val": 0.2}  # in the order in which a class with few groups gets them
SEED = 1


def split(items: Items, groups: Sequence[str]) -> tuple[Items, Items, Items]:
    """Training, validation and test pictures, 50, 20 and 30 % of each class; with groups, as near as they allow."""
    if not groups:
        return random_split(items, (SHARES["train"], SHARES["val"]), keep_for_testing=True)
    train, test, val = dealt(items, groups, list(SHARES.values()), learns=True)
    return train, val, test


def fold(items: Items, groups: Sequence[str], count: int, which: int) -> tuple[Items, Items, Items]:
    """The same with the fold number `which` (from 0) of `count` as test pictures, and 5 to 2 of the others.

    Raises ValueError for a class with fewer pictures than folds, or of one group alone, which could not be trained on when
    it tests.
    """
    units = Counter(label for label, _ in {(x.label, groups[i] if groups else i) for i, x in enumerate(items)})
    least = 2 if groups else count
    short = next((label for label in sorted(units) if units[label] < least), None)
    if short is not None:
        name, kind = next(x.classname for x in items if x.label == short), "groups" if groups else "pictures"
        raise ValueError(
            f'class "{name}" has {units[short]} {kind}, and {count} folds need {least}: add some, or use fewer'
        )
    if groups and len({*groups}) < count:
        raise ValueError(f"{len({*groups})} groups cannot be dealt into {count} folds: use fewer folds")
    parts = dealt(items, groups or [str(i) for i in range(len(items))], [1 / count] * count)
    tested = {id(x) for x in parts[which]}
    rest = [i for i, x in enumerate(items) if id(x) not in tested]
    left = [items[i] for i in rest]
    of_training = SHARES["train"] / (SHARES["train"] + SHARES["val"])
    if groups:
        train, val = dealt(left, [groups[i] for i in rest], [of_training, 1 - of_training], learns=True)
    else:
        train, val, _ = random_split(left, (of_training, 1.0))
    return train, val, parts[which]


def dealt(items: Items, groups: Sequence[str], shares: Sequence[float], learns: bool = False) -> list[Items]:
    """Parts of about these shares of each class, every group in one of them; the same each time.

    The classes with fewest groups are dealt first. A group goes to the first part that has nothing of its classes yet, or
    else to the one that lacks most of them. learns: the first part is for training, and has all classes.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    of_class = Counter(x.label for x in items)
    counts = {group: Counter(items[i].label for i in own) for group, own in members.items()}
    in_groups = Counter(label for count in counts.values() for label in count)
    order = sorted(members)
    random.Random(SEED).shuffle(order)
    order.sort(key=lambda group: (min(in_groups[label] for label in counts[group]), -len(members[group])))
    has: list[Counter[int]] = [Counter() for _ in shares]
    home = {}
    for group in order:

        def wish(part: int, own: Counter[int] = counts[group]) -> tuple[int, float]:
            lacks = sum(n * (shares[part] - has[part][label] / of_class[label]) for label, n in own.items())
            return sum(not has[part][label] for label in own), lacks

        in_groups.subtract(counts[group].keys())  # those that are left
        last = learns and any(not in_groups[label] and not has[0][label] for label in counts[group])
        home[group] = 0 if last else max(range(len(shares)), key=wish)  # the first of those that are alike
        has[home[group]].update(counts[group])
    parts: list[Items] = [[] for _ in shares]
    for item, group in zip(items, groups, strict=True):
        parts[home[group]].append(item)
    return parts
