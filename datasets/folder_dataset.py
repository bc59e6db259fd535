"""Your own pictures, without writing code.

    bash scripts/mocoop/main.sh path/to/pictures 16

The folder holds class folders; or train/, (val/ or valid/,) test/ with class folders each, or train/ alone; or
DATASET.SPLIT_FILE names a split file in CoOp's format whose paths are relative to the folder, or a manifest (manifest.py).
What has no test part is split 50/20/30 per class, always the same way, or, with DATASET.FOLDS, tested fold by fold.
A class folder may hold further folders beside its pictures. Class names are the folders' names, or those of
DATASET.NAMES_FILE, or of a file classnames.txt in the folder: a line of folder and name each ("n01440764 tench"). Nothing
is written into the folder.
"""

import hashlib
import os
import unicodedata
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, Datum
from yacs.config import CfgNode

from trainers.core.loading.read import is_picture, left_by_a_system, pictures_below, told
from trainers.core.runs.files import user_cache
from trainers.core.settings.text_files import is_manifest, read_pairs

from .few_shot import FewShotDataset, Items, read_split
from .manifest import read_manifest
from .splitting import fold, split

PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}


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
        if is_manifest(cfg.DATASET.SPLIT_FILE):
            listed = read_manifest(cfg.DATASET.SPLIT_FILE)
            if not listed.parts:
                return _split(cfg, listed.items, listed.groups)
            _refuse_folds(cfg, cfg.DATASET.SPLIT_FILE)
            train, val, test = (
                [item for item, own in zip(listed.items, listed.parts, strict=True) if own == part] for part in PARTS
            )
            return train, val, test
        if cfg.DATASET.SPLIT_FILE:
            _refuse_folds(cfg, cfg.DATASET.SPLIT_FILE)
            return read_split(cfg.DATASET.SPLIT_FILE, self.image_dir)
        parts = _parts(folder)
        folders = _class_folders(parts.get("train", folder))
        names = _names(folder, cfg.DATASET.NAMES_FILE, folders)
        for part in parts.values():
            misplaced = part / "classnames.txt"
            if misplaced.is_file() and not cfg.DATASET.NAMES_FILE:
                _note_left([misplaced], part)
        if "test" in parts:
            _refuse_folds(cfg, str(parts["test"]))
            train, val, test = (_read(parts[part], names, part) if part in parts else [] for part in PARTS)
            return train, val, test
        return _split(cfg, _read(parts.get("train", folder), names, "train"), [])


def _split(cfg: CfgNode, items: Items, groups: list[str]) -> tuple[Items, Items, Items]:
    """Of pictures that come without a split. Fold k of DATASET.FOLDS tests with seed k."""
    count = cfg.DATASET.FOLDS
    what = "groups are kept whole" if groups else "of each class"
    if count:
        which = (cfg.SEED - 1) % count
        print(f"No test part: fold {which + 1} of {count} tests, {what}; 5 to 2 of the others train and validate")
        return fold(items, groups, count, which)
    print(f"No test part: 50 % are for training, 20 % for validation, 30 % for testing, {what}")
    return split(items, groups)


def _refuse_folds(cfg: CfgNode, where: str) -> None:
    if cfg.DATASET.FOLDS:
        raise ValueError(f"DATASET.FOLDS is for pictures without a test part, and {where} has one: leave it out")


def _parts(folder: Path) -> dict[str, Path]:
    """The folders of the parts of a split, whatever they are called; none where class folders lie in the folder itself,
    one of which may be called train.

    Raises ValueError for two folders of one part, and for parts that make no split.
    """
    folders = [folder / name for name in _folders_in(folder)]
    found: dict[str, Path] = {}
    for entry in folders:
        part = next((part for part, words in PARTS.items() if entry.name.lower() in words), "")
        if part in found:
            raise ValueError(f"{found[part]} and {entry} are both for {part}: keep one")
        if part:
            found[part] = entry
    if "train" in found and "test" in found:
        _note_left([entry for entry in folders if entry not in found.values()], folder)
        return found
    if len(found) < len(folders) or not found:
        return {}
    if list(found) != ["train"]:
        there = ", ".join(path.name for path in found.values())
        raise ValueError(
            f"{folder} has {there} alone: add train/ and test/ (what is tested on is called test here, not val), or leave "
            "train/ alone, which is then split"
        )
    return found


def _note_left(entries: list[Path], where: Path) -> None:
    """Says what lies beside the folders that are read, and is not."""
    if entries:
        print(f"Note: in {where}, {len(entries)} that are not read: {', '.join(path.name for path in entries[:4])}")


def _folders_in(folder: Path) -> list[str]:
    """But for hidden ones, what systems leave, and CoOp's cache."""
    names = sorted(e.name for e in os.scandir(folder) if e.is_dir())
    return [name for name in names if name != "split_fewshot" and not left_by_a_system(name)]


def _class_folders(folder: Path) -> list[str]:
    names = _folders_in(folder)
    if len(names) < 2:
        there = f"one class alone, {names[0]}: there is nothing to tell apart" if names else "no class folders"
        raise ValueError(f"{folder} holds {there}")
    return names


def _names(folder: Path, names_file: str, folders: list[str]) -> dict[str, str]:
    """Class name of each class folder. Raises ValueError for folders that a names file leaves out, and double names."""
    file = Path(names_file) if names_file else folder / "classnames.txt"
    if names_file and not file.is_file():
        raise FileNotFoundError(f"{file} is missing: DATASET.NAMES_FILE holds a line of folder and class name each")
    known = read_pairs(str(file)) if file.is_file() else {name: name for name in folders}
    known = {_composed(name): called for name, called in known.items()}
    nameless = [name for name in folders if _composed(name) not in known]
    if nameless:
        raise ValueError(f'{file} has no name for the folder "{nameless[0]}": add a line, or remove the folder')
    names = {name: known[_composed(name)] for name in folders}
    undecodable = next((name for name in names.values() if any("\ud800" <= sign <= "\udfff" for sign in name)), None)
    if undecodable is not None:
        raise ValueError(f"the folder {undecodable!a} in {folder} is not called in UTF-8: rename it")
    twice = [name for name in names.values() if list(names.values()).count(name) > 1]
    if twice:
        raise ValueError(
            f'"{twice[0]}" is the class of more than one folder in {folder}{f" by {file}" if file.is_file() else ""}: '
            "classes are told apart by name"
        )
    return names


def _composed(name: str) -> str:
    """The same accents in one way of writing; file systems keep both."""
    return unicodedata.normalize("NFC", name)


def _read(folder: Path, names: dict[str, str], part: str) -> Items:
    here = _folders_in(folder)
    called = {_composed(name): name for name in here}  # accents may be written otherwise than in training
    double = next((name for name in here if called[_composed(name)] != name), None)
    if double is not None:
        raise ValueError(f"{folder / double} and another folder there are called alike: put them together")
    extra = [name for key, name in called.items() if key not in {_composed(known) for known in names}]
    if extra:
        raise ValueError(f"{folder / extra[0]} is a class without training pictures")
    loose = [path for path in sorted(folder.iterdir()) if path.is_file() and is_picture(path.name)]
    if part == "test" and loose and not called:
        raise ValueError(
            f"{folder} holds {len(loose):,} pictures and no class folders, so nobody knows what they show: move it "
            "elsewhere (predict.py reads it)"
        )
    _note_left(loose, folder)
    items, others = [], []
    for label, (own, name) in enumerate(names.items()):
        below = called.get(_composed(own), "")
        pictures, left = pictures_below(folder / below) if below else ([], [])
        others += left
        within = {os.path.relpath(path, folder / below).split(os.sep)[0] for path in pictures}
        if len(within) > 1 and all((folder / below / name).is_dir() for name in within):
            raise ValueError(
                f"{folder / below} holds folders of pictures, and none of its own: is it a part (train/ beside test/), or "
                "a folder too many? If these are folders of one class, give a list of the pictures (docs/DATASETS.md)"
            )
        if not pictures and part == "train":
            why = f" ({told(left)})" if left else ""
            raise ValueError(f"{folder / below} holds no picture{why}, but stands for a class: fill or remove it")
        if not pictures:
            print(f"Note: {folder} has no picture of the class {name}")
        items += [Datum(impath=path, label=label, classname=name) for path in pictures]
    if others:
        print(f"Note: {told(others)}")
    if not items and part == "test":
        raise ValueError(
            f"{folder} holds no pictures: fill it, or remove it, and a part of the training pictures tests"
        )
    return items
