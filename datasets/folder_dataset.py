"""Your own pictures, without writing code.

    bash scripts/mocoop/main.sh path/to/pictures 16

The folder holds class folders; or train/, (val/,) test/ with class folders each; or DATASET.SPLIT_FILE names a split file
in CoOp's format whose paths are relative to the folder. One without a split of its own is split 50/20/30 per class,
always the same way. Class names are the folders' names, or those of DATASET.NAMES_FILE, or of a file classnames.txt in the
folder: a line of folder and name each ("n01440764 tench"). Nothing is written into the folder.
"""

import hashlib
import os
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, Datum
from PIL import Image
from yacs.config import CfgNode

from trainers.core.files import user_cache

from .few_shot import FewShotDataset, Items, random_split, read_split
from .imagenet import read_pairs

PARTS = ("train", "val", "test")


@DATASET_REGISTRY.register()
class FolderDataset(FewShotDataset):
    @classmethod
    def place(cls, cfg: CfgNode) -> Path:
        if not cfg.DATASET.FOLDER:
            raise ValueError("FolderDataset needs a folder: DATASET.FOLDER path/to/pictures")
        return Path(cfg.DATASET.FOLDER).expanduser().resolve()

    def draws(self, cfg: CfgNode) -> Path:
        """In the user's cache, since the pictures are not ours to write beside."""
        return user_cache() / "few_shot" / hashlib.sha256(self.dataset_dir.encode()).hexdigest()[:16]

    def read(self, cfg: CfgNode) -> tuple[Items, Items, Items]:
        folder = Path(self.dataset_dir)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is missing: DATASET.FOLDER names a folder of class folders")
        if cfg.DATASET.SPLIT_FILE:
            return read_split(cfg.DATASET.SPLIT_FILE, self.image_dir)
        has_parts = (folder / "train").is_dir() and (folder / "test").is_dir()
        folders = _class_folders(folder / "train" if has_parts else folder)
        names = _names(folder, cfg.DATASET.NAMES_FILE, folders)
        if has_parts:
            train, val, test = (_read(folder / part, names) for part in PARTS)
            return train, val, test
        items = _read(folder, names)
        print("This folder has no split: 50 % of each class are for training, 20 % for validation, 30 % for testing")
        return random_split(items, (0.5, 0.2))


def _class_folders(folder: Path) -> list[str]:
    names = sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name != "split_fewshot" and e.name[0] != ".")
    if not names:
        raise ValueError(f"{folder} holds no class folders")
    return names


def _names(folder: Path, names_file: str, folders: list[str]) -> dict[str, str]:
    """Class name of each class folder. Raises ValueError for folders that a names file leaves out, and double names."""
    file = Path(names_file) if names_file else folder / "classnames.txt"
    if names_file and not file.is_file():
        raise FileNotFoundError(f"{file} is missing: DATASET.NAMES_FILE holds a line of folder and class name each")
    known = read_pairs(str(file)) if file.is_file() else {name: name for name in folders}
    nameless = [name for name in folders if name not in known]
    if nameless:
        raise ValueError(f'{file} has no name for the folder "{nameless[0]}": add a line, or remove the folder')
    names = {name: known[name] for name in folders}
    twice = [name for name in names.values() if list(names.values()).count(name) > 1]
    if twice:
        raise ValueError(f'{file} gives "{twice[0]}" to more than one folder: classes are told apart by name')
    return names


def _read(folder: Path, names: dict[str, str]) -> Items:
    if not folder.is_dir():
        return []
    extra = sorted({e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != "."} - {*names, "split_fewshot"})
    if extra:
        raise ValueError(f"{folder / extra[0]} is a class without training pictures")
    known = Image.registered_extensions()
    items = [
        Datum(impath=str(path), label=label, classname=name)
        for label, (below, name) in enumerate(names.items())
        for path in sorted((folder / below).glob("[!.]*"))  # not what macOS leaves beside pictures (._name.jpg)
        if path.suffix.lower() in known and path.is_file()
    ]
    filled = {item.label for item in items}
    empty = [name for label, name in enumerate(names) if label not in filled]
    if empty and folder.name not in PARTS[1:]:
        raise ValueError(f"{folder / empty[0]} holds no picture, but stands for a class: fill or remove it")
    return items
