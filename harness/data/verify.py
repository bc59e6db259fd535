"""What a dataset's folder holds, as the project's own reader sees it: counts, missing, undecodable and extra pictures."""

import contextlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from trainers.paths import ROOT


@dataclass
class Check:
    """The outcome for one dataset; faults are lines, each naming what is wrong."""

    name: str
    pictures: tuple[int, int, int] = (0, 0, 0)
    classes: int = 0
    missing: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    extra: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not (self.missing or self.corrupt or self.faults)

    def reason(self) -> str:
        """The first of what is wrong, in one line."""
        if self.faults:
            return self.faults[0]
        if self.missing:
            return f"{len(self.missing)} pictures are missing, for example {self.missing[0]}"
        if self.corrupt:
            return f"{len(self.corrupt)} pictures cannot be decoded, for example {self.corrupt[0]}"
        return "complete"


def verify(name: str, root: Path, pictures: list[int] | None = None, classes: int = 0) -> Check:
    """Reads dataset `name` below `root` and looks at every picture.

    pictures, classes: the numbers of training, validation and test pictures and of classes that it should have.
    """
    check = Check(name)
    try:
        train, val, test, folder = _read(name, root)
    except (OSError, ValueError) as error:
        check.faults.append(str(error).splitlines()[0].split(": python scripts/prepare_data.py")[0])
        return check
    check.pictures = len(train), len(val), len(test)
    check.classes = len({item.label for item in [*train, *val, *test]})
    if pictures and list(check.pictures) != pictures:
        check.faults.append(f"it has {check.pictures} training, validation and test pictures, not {tuple(pictures)}")
    if classes and check.classes != classes:
        check.faults.append(f"it has {check.classes} classes, not {classes}")
    paths = sorted({item.impath for item in [*train, *val, *test]})
    check.missing = [p for p in paths if not os.path.isfile(p)]
    check.corrupt = _undecodable(name, sorted(set(paths) - set(check.missing)))
    check.extra = _count_files(folder) - (len(paths) - len(check.missing))
    return check


def _read(name: str, root: Path) -> tuple[list, list, list, Path]:
    """Training, validation and test items, and the folder of the pictures."""
    from dassl.data.datasets import DATASET_REGISTRY  # here, since these import torch, and listing needs none

    import datasets
    from trainers.core.settings.configure import default_cfg

    datasets.register_all()
    cfg = default_cfg()
    settings = yaml.safe_load((ROOT / "configs" / "datasets" / f"{name}.yaml").read_text())
    cfg.DATASET.NAME, cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS = settings["DATASET"]["NAME"], str(root), -1
    kind: Any = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    with contextlib.redirect_stdout(io.StringIO()):
        data = kind(cfg)
    train, val, test = data.train_x, data.val or [], data.test
    if kind.test_only:
        train, val = [], []
    return train, val, test, Path(data.image_dir)


def _undecodable(name: str, paths: list[str]) -> list[str]:
    from trainers.core.loading.read import UNDECODABLE, read_picture

    def fails(path: str) -> str | None:
        try:
            read_picture(path)
        except UNDECODABLE:
            return path
        return None

    with ThreadPoolExecutor() as pool:  # decoding releases Python's lock
        found = list(tqdm(pool.map(fails, paths), total=len(paths), desc=f"Decoding {name}", unit="picture"))
    return [path for path in found if path]


def _count_files(folder: Path) -> int:
    pictures = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
    return sum(f.lower().endswith(pictures) for _, _, files in os.walk(folder, followlinks=True) for f in files)
