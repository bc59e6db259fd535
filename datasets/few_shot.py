"""What all benchmarks share: split files, few-shot draws, base and new classes.

A benchmark names its folder, its folder of pictures and its split file; it overrides `read` if it has no split file.
"""

import hashlib
import json
import math
import os
import random
from collections.abc import Sequence
from pathlib import Path

from dassl.data.datasets import DatasetBase, Datum
from yacs.config import CfgNode

Items = list[Datum]


class FewShotDataset(DatasetBase):
    """Train, validation and test pictures of one benchmark, drawn and subsampled as CoOp does (bit for bit).

    cfg.DATASET: ROOT, NUM_SHOTS (pictures per class, < 1 for all), SUBSAMPLE_CLASSES ("all", "base", "new").
    all_class_names holds every class's name in label order, whatever was subsampled.
    Raises FileNotFoundError, naming what is missing and the command that fetches it.
    """

    folder = ""  # below ROOT
    image_folder = ""  # below `folder`
    split_file = ""  # below `folder`
    command_name = ""  # what scripts/prepare_data.py calls it, if not the folder
    test_only = False  # nothing is drawn from it

    def __init__(self, cfg: CfgNode) -> None:
        self.dataset_dir = str(Path(cfg.DATASET.ROOT or "data").expanduser().resolve() / self.folder)
        self.image_dir = os.path.join(self.dataset_dir, self.image_folder)
        train, val, test = self.read(cfg)
        self._require_whole_numbering(train, val, test)
        _, self.all_class_names = self.get_lab2cname(train)
        if cfg.DATASET.NUM_SHOTS >= 1 and not self.test_only:
            train, val = self._few_shots(cfg, train, val)
        train, val, test = subsample_classes(train, val, test, subsample=cfg.DATASET.SUBSAMPLE_CLASSES)
        super().__init__(train_x=train, val=val or test, test=test)

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
        untrained = set(range(max(names, default=0) + 1)) - {item.label for item in parts[0]}
        if untrained:
            label = min(untrained)
            which = f'class "{names[label]}"' if label in names else "no class"
            raise ValueError(
                f"{self.dataset_dir}: label {label} ({which}) has no training picture: "
                "number the classes from 0 on, and give each a training picture, or leave it out"
            )

    def _few_shots(self, cfg: CfgNode, train: Items, val: Items) -> tuple[Items, Items]:
        """The draw of this seed, from its cache if it was drawn before.

        The cache lists positions in the split, with a digest of the split, so that it never serves another one.
        """
        shots, seed = cfg.DATASET.NUM_SHOTS, cfg.SEED
        path = Path(self.dataset_dir) / "split_fewshot" / f"shot_{shots}-seed_{seed}.json"
        paths = "\n".join(os.path.relpath(item.impath, self.dataset_dir) for items in (train, val) for item in items)
        digest = hashlib.sha256(paths.encode()).hexdigest()
        if seed >= 0 and path.is_file():
            drawn = json.loads(path.read_text())
            if drawn["split_sha256"] == digest:
                print(f"Loading preprocessed few-shot data from {path}")
                return [train[i] for i in drawn["train"]], [val[i] for i in drawn["val"]]
        short = [name for name, n in _counts(train).items() if n < shots]
        if short:
            print(
                f"{len(short)} classes have fewer than {shots} training pictures and give all they have: {short[0]}, ..."
            )
        few_train = self.generate_fewshot_dataset(train, num_shots=shots)
        few_val = self.generate_fewshot_dataset(val, num_shots=min(shots, 4)) if val else []
        if seed >= 0:
            where = {id(item): i for items in (train, val) for i, item in enumerate(items)}
            drawn = {"train": [where[id(x)] for x in few_train], "val": [where[id(x)] for x in few_val]}
            record = {"split_sha256": digest, **drawn}
            _write_cache(path, json.dumps(record))
        return few_train, few_val


def _counts(items: Items) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in items:
        counts[item.classname] = counts.get(item.classname, 0) + 1
    return counts


def _write_cache(path: Path, content: str) -> None:
    """Two runs may start at once: each writes a file of its own and renames it. A read-only folder is no reason to stop."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(exist_ok=True)
        partial.write_text(content)
        partial.replace(path)
        print(f"Saving preprocessed few-shot data to {path}")
    except OSError as error:
        print(f"The few-shot draw is not cached ({error}); the same seed draws the same pictures again")


def read_split(path: str, image_dir: str) -> tuple[Items, Items, Items]:
    """A split file, {"train": [[relative path, label, class name], ...], "val": ..., "test": ...}, as lists of Datum.

    Raises ValueError when the file is no such split.
    """
    try:
        with open(path) as file:
            split = json.load(file)
        parts = [
            [Datum(impath=os.path.join(image_dir, p), label=int(y), classname=c) for p, y, c in split[part]]
            for part in ("train", "val", "test")
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path} is no split file ({error!r}): expected {{"train": [[path, label, name], ...], ...}}'
        ) from None
    return parts[0], parts[1], parts[2]


def subsample_classes(*parts: Items, subsample: str = "all") -> Sequence[Items]:
    """All classes, or the first ceil(n/2) labels ("base"), or the rest ("new"), renumbered from 0.

    Raises ValueError for any other word, and for "new" when there is one class only.
    """
    if subsample not in ("all", "base", "new"):
        raise ValueError(f'DATASET.SUBSAMPLE_CLASSES is "{subsample}": use all, base or new')
    if subsample == "all":
        return parts
    labels = sorted({item.label for item in parts[0]})
    half = math.ceil(len(labels) / 2)
    chosen = labels[:half] if subsample == "base" else labels[half:]
    if not chosen:
        raise ValueError(f"there are no {subsample} classes among {len(labels)}")
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


def random_split(items: Items, shares: tuple[float, float], seed: int = 1) -> tuple[Items, Items, Items]:
    """Training, validation and test pictures, class by class, by `shares` of the first two; reproducible."""
    rng = random.Random(seed)
    by_class: dict[int, Items] = {}
    for item in items:
        by_class.setdefault(item.label, []).append(item)
    parts: tuple[Items, Items, Items] = ([], [], [])
    for own in by_class.values():
        own = rng.sample(own, len(own))
        n_train, n_val = (round(len(own) * share) for share in shares)
        n_train = max(1, n_train)  # a class nobody trains on would have no name
        for part, chosen in zip(
            parts, (own[:n_train], own[n_train : n_train + n_val], own[n_train + n_val :]), strict=True
        ):
            part += chosen
    return parts
