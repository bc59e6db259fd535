"""Your own pictures, without writing code.

    DATASET.NAME FolderDataset DATASET.FOLDER path/to/pictures

The folder holds class folders; or train/, (val/,) test/ with class folders each; or DATASET.SPLIT_FILE names a split file
in CoOp's format whose paths are relative to the folder. One without a split of its own is split 50/20/30 per class,
always the same way.
"""

import os
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, Datum
from PIL import Image
from yacs.config import CfgNode

from .few_shot import FewShotDataset, Items, random_split, read_split

PARTS = ("train", "val", "test")


@DATASET_REGISTRY.register()
class FolderDataset(FewShotDataset):
    def read(self, cfg: CfgNode) -> tuple[Items, Items, Items]:
        if not cfg.DATASET.FOLDER:
            raise ValueError("FolderDataset needs a folder: DATASET.FOLDER path/to/pictures")
        folder = Path(cfg.DATASET.FOLDER).expanduser().resolve()
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is missing: DATASET.FOLDER names a folder of class folders")
        self.dataset_dir = self.image_dir = str(folder)
        if cfg.DATASET.SPLIT_FILE:
            return read_split(cfg.DATASET.SPLIT_FILE, self.image_dir)
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            names = _class_folders(folder / "train")
            train, val, test = (_read(folder / part, names) for part in PARTS)
            return train, val, test
        items = _read(folder, _class_folders(folder))
        print("This folder has no split: 50 % of each class are for training, 20 % for validation, 30 % for testing")
        return random_split(items, (0.5, 0.2))


def _class_folders(folder: Path) -> list[str]:
    names = sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name != "split_fewshot" and e.name[0] != ".")
    if not names:
        raise ValueError(f"{folder} holds no class folders")
    return names


def _read(folder: Path, names: list[str]) -> Items:
    if not folder.is_dir():
        return []
    extra = sorted({e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != "."} - {*names, "split_fewshot"})
    if extra:
        raise ValueError(f"{folder / extra[0]} is a class without training pictures")
    known = Image.registered_extensions()
    items = [
        Datum(impath=str(path), label=label, classname=name)
        for label, name in enumerate(names)
        for path in sorted((folder / name).glob("[!.]*"))  # not what macOS leaves beside pictures (._name.jpg)
        if path.suffix.lower() in known
    ]
    filled = {item.label for item in items}
    empty = [name for label, name in enumerate(names) if label not in filled]
    if empty and folder.name not in PARTS[1:]:
        raise ValueError(f"{folder / empty[0]} holds no picture, but stands for a class: fill or remove it")
    return items
