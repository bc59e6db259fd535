"""What all benchmarks share: split files, few-shot draws, base and new classes.

A benchmark names its folder, its folder of pictures and its split file; it overrides `read` if it has no split file.
"""

import contextlib
import hashlib
import json
import math
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from dassl.data.datasets import DatasetBase, Datum
from yacs.config import CfgNode

from trainers.core.runs.files import write_atomically
from trainers.core.settings.text_files import read_text

Items = list[Datum]


class FewShotDataset(DatasetBase):
    """Train, validation and test pictures of one benchmark, drawn and subsampled as CoOp does (bit for bit).

    cfg.DATASET: ROOT, NUM_SHOTS (pictures per class, < 1 for all), SUBSAMPLE_CLASSES ("all", "base", "new", "joint").
    all_class_names holds every class's name in label order, whatever was subsampled.
    Raises FileNotFoundError, naming what is missing and the command that fetches it.
    """

    folder = ""  # below ROOT
    image_folder = ""  # below `folder`
    split_file = ""  # below `folder`
    command_name = ""  # what scripts/prepare_data.py calls it, if not the folder
    test_only = False  # nothing is drawn from it
    has_domains = False  # among which DATASET.SOURCE_DOMAINS and DATASET.TARGET_DOMAINS choose

    def __init__(self, cfg: CfgNode) -> None:
        if not self.has_domains and (cfg.DATASET.SOURCE_DOMAINS or cfg.DATASET.TARGET_DOMAINS):
            raise ValueError(f"{cfg.DATASET.NAME} has no domains: leave out --source-domains and --target-domains")
        self.dataset_dir = str(self.place(cfg))
        self.image_dir = os.path.join(self.dataset_dir, self.image_folder)
        train, val, test = self.read(cfg)
        self._require_whole_numbering(train, val, test)
        _, self.all_class_names = self.get_lab2cname(train)
        if cfg.DATASET.NUM_SHOTS >= 1 and not self.test_only:
            train, val = self._few_shots(cfg, train, val)
        train, val, test = subsample_classes(train, val, test, subsample=cfg.DATASET.SUBSAMPLE_CLASSES)
        super().__init__(train_x=train, val=val or None, test=test)

    @classmethod
    def place(cls, cfg: CfgNode) -> Path:
        """The dataset's folder."""
        return Path(cfg.DATASET.ROOT or "data").expanduser().resolve() / cls.folder

    @classmethod
    def missing(cls, cfg: CfgNode) -> list[str]:
        """What of the dataset is not there; a look at a few paths, for asking before anything is done."""
        place = cls.place(cfg)
        return [str(path) for path in (place, place / cls.image_folder, place / cls.split_file) if not path.exists()]

    def draws(self, cfg: CfgNode) -> Path:
        """The folder where few-shot draws are kept."""
        return Path(self.dataset_dir) / "split_fewshot"

    def read(self, cfg: CfgNode) -> tuple[Items, Items, Items]:
        """All pictures of the training, validation and test sets; the default reads `split_file`."""
        self.require(self.image_dir)
        path = self.require(os.path.join(self.dataset_dir, self.split_file))
        print(f"Reading split from {path}")
        return read_split(path, self.image_dir)

    def require(self, path: str) -> str:
        """`path`, if it exists; otherwise FileNotFoundError with the command that fetches the data."""
        if not os.path.exists(path):
            name = self.command_name or self.folder
            root = os.path.dirname(self.dataset_dir)
            raise FileNotFoundError(f"{path} is missing: python scripts/prepare_data.py {name} --root {root}")
        return path

    def _require_whole_numbering(self, *parts: Items) -> None:
        """Class names are found by label, so every label from 0 on needs a training picture; otherwise ValueError."""
        names = {item.label: item.classname for items in parts for item in items}
        trained = sorted({item.label for item in parts[0]})
        if trained != list(range(len(trained))) or len(names) > len(trained):
            label = next((i for i, found in enumerate(trained) if i != found), len(trained))
            which = f'class "{names[label]}"' if label in names else "no class"
            raise ValueError(
                f"{self.dataset_dir}: label {label} ({which}) has no training picture: "
                "number the classes from 0 on, and give each a training picture, or leave it out"
            )

    def _few_shots(self, cfg: CfgNode, train: Items, val: Items) -> tuple[Items, Items]:
        """The draw of this seed, whatever was drawn from Python's generator before, which is left as it was.

        It is noted in a file, as positions in the split, with a digest of the split and one of itself.
        """
        shots, seed = cfg.DATASET.NUM_SHOTS, cfg.SEED
        path = self.draws(cfg) / f"shot_{shots}-seed_{seed}.json"
        digest = split_digest(self.dataset_dir, train, val)
        short = [label for label, n in Counter(i.label for i in train).items() if n < shots]  # two may have one name
        if short:
            name = next(item.classname for item in train if item.label == short[0])
            print(
                f"Note: {len(short)} classes have fewer than {shots} training pictures and give all they have: {name}, ..."
            )
        with _drawn_from(seed) if seed >= 0 else contextlib.nullcontext():
            few_train = self.generate_fewshot_dataset(train, num_shots=shots)
            few_val = self.generate_fewshot_dataset(val, num_shots=min(shots, 4)) if val else []
        if seed >= 0:
            where = {id(item): i for items in (train, val) for i, item in enumerate(items)}
            drawn = {"train": [where[id(x)] for x in few_train], "val": [where[id(x)] for x in few_val]}
            record = {"split_sha256": digest, "shots": shots, "seed": seed, **drawn}
            if not _is_noted(path, record):
                _note(path, record)
        return few_train, few_val


def split_digest(folder: str, *parts: Items) -> str:
    """SHA-256 over path below `folder`, label, class name and domain of every picture, in order."""
    digest = hashlib.sha256()
    for items in parts:
        for x in items:
            digest.update(json.dumps([os.path.relpath(x.impath, folder), x.label, x.classname, x.domain]).encode())
        digest.update(b"|")
    return digest.hexdigest()


def _draw_digest(record: dict) -> str:
    known = {key: record.get(key) for key in ("split_sha256", "shots", "seed", "train", "val")}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _is_noted(path: Path, record: dict) -> bool:
    """Whether the file holds this draw, whole."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return found == record | {"draw_sha256": _draw_digest(record)}


@contextlib.contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _note(path: Path, record: dict) -> None:
    """Two runs may start at once: each writes a file of its own and renames it. A read-only folder is no reason to stop."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(record | {"draw_sha256": _draw_digest(record)}).encode())
        print(f"The few-shot draw is noted in {path}")
    except OSError as error:
        print(f"The few-shot draw is not noted ({error}); the same seed draws the same pictures again")


def read_split(path: str, image_dir: str) -> tuple[Items, Items, Items]:
    """A split file, {"train": [[relative path, label, class name], ...], "val": ..., "test": ...}, as lists of Datum.

    Raises ValueError when the file is no such split, or contradicts itself: labels that are no whole numbers from 0 on,
    a label with two names, a name with two labels, a picture that stands twice.
    """
    text = read_text(path)
    try:
        split = json.loads(text)
        rows = {part: [tuple(row) for row in split[part]] for part in ("train", "val", "test")}
        parts = [[_datum(image_dir, *row) for row in rows[part]] for part in ("train", "val", "test")]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        said = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise ValueError(
            f'{path} is no split file ({said}): expected {{"train": [[path, label, name], ...], ...}}'
        ) from None
    names: dict[int, str] = {}
    labels: dict[str, int] = {}
    seen: dict[str, str] = {}
    for part, items in zip(rows, parts, strict=True):
        for x in items:
            if names.setdefault(x.label, x.classname) != x.classname:
                raise ValueError(f'{path}: label {x.label} is called "{names[x.label]}" and "{x.classname}"')
            if labels.setdefault(x.classname, x.label) != x.label:
                raise ValueError(f'{path}: "{x.classname}" has two labels, {labels[x.classname]} and {x.label}')
            if x.impath in seen:
                raise ValueError(f"{path}: {x.impath} stands twice, in {seen[x.impath]} and in {part}")
            seen[x.impath] = part
    return parts[0], parts[1], parts[2]


def _datum(image_dir: str, path: str, label: int, name: str, *more: object) -> Datum:
    if not isinstance(path, str) or not path or "\0" in path or more:
        raise ValueError(f"{path!r} is no path of a picture")
    if type(label) is not int or label < 0:
        raise ValueError(f"label {label!r} of {path} is no whole number from 0 on")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{path} has no class name")
    return Datum(impath=os.path.normpath(os.path.join(image_dir, path)), label=label, classname=name)


def subsample_classes(*parts: Items, subsample: str = "all") -> Sequence[Items]:
    """All classes ("all", "joint"), or the first ceil(n/2) labels ("base"), or the rest ("new"), renumbered from 0.

    Raises ValueError for any other word, and for a half of fewer than two classes.
    """
    if subsample not in ("all", "base", "new", "joint"):
        raise ValueError(f'DATASET.SUBSAMPLE_CLASSES is "{subsample}": use all, base, new or joint')
    if subsample in ("all", "joint"):
        return parts
    labels = sorted({item.label for item in parts[0]})
    half = math.ceil(len(labels) / 2)
    chosen = labels[:half] if subsample == "base" else labels[half:]
    if len(chosen) < 2:
        raise ValueError(
            f"of {len(labels)} classes {len(chosen)} would be {subsample}: base and new need two each, to be told apart"
        )
    print(f"SUBSAMPLE {subsample.upper()} CLASSES!")
    new_label = {label: i for i, label in enumerate(chosen)}
    return [
        [
            Datum(impath=x.impath, label=new_label[x.label], domain=x.domain, classname=x.classname)
            for x in items
            if x.label in new_label
        ]
        for items in parts
    ]


def random_split(
    items: Items, shares: tuple[float, float], seed: int = 1, keep_for_testing: bool = False
) -> tuple[Items, Items, Items]:
    """Training, validation and test pictures, class by class, by `shares` of the first two; reproducible.

    keep_for_testing: one picture of a class that has two or three.
    """
    rng = random.Random(seed)
    by_class: dict[int, Items] = {}
    for item in items:
        by_class.setdefault(item.label, []).append(item)
    parts: tuple[Items, Items, Items] = ([], [], [])
    for own in by_class.values():
        own = rng.sample(own, len(own))
        n_train, n_val = (round(len(own) * share) for share in shares)
        n_train = max(1, n_train)  # a class nobody trains on would have no name
        if keep_for_testing and n_train + n_val >= len(own) > 1:
            n_val = 0
            n_train = min(n_train, len(own) - 1)
        for part, chosen in zip(
            parts, (own[:n_train], own[n_train : n_train + n_val], own[n_train + n_val :]), strict=True
        ):
            part += chosen
    return parts
