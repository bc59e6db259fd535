"""ImageNet (Deng et al., 2009): 1,000 classes; its validation set is the test set, as everywhere."""

import os

from dassl.data.datasets import DATASET_REGISTRY, Datum
from yacs.config import CfgNode

from trainers.core.settings.text_files import read_pairs

from .few_shot import FewShotDataset, Items


def read_classnames(dataset: FewShotDataset) -> dict[str, str]:
    """classnames.txt, a line of folder and class name each, of the dataset itself or of ImageNet beside it."""
    own = os.path.join(dataset.dataset_dir, "classnames.txt")
    shared = os.path.join(os.path.dirname(dataset.dataset_dir), "imagenet", "classnames.txt")
    path = own if os.path.exists(own) else dataset.require(shared)
    return read_pairs(path)


def labels_of(folder: str) -> dict[str, int]:
    """The label of each synset that has a folder: its place in alphabetical order."""
    synsets = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    return {synset: label for label, synset in enumerate(synsets)}


def read_folders(folder: str, names: dict[str, str], labels: dict[str, int] | None = None) -> Items:
    """Pictures in folders named by synset. labels: of each synset, where another folder decides them.

    Raises ValueError for a folder that has no name, or no label.
    """
    items, own = [], labels_of(folder)
    labels = own if labels is None else labels
    for synset in own:
        for known, what in ((names, "no class of classnames.txt"), (labels, "a class without training pictures")):
            if synset not in known:
                raise ValueError(f"{os.path.join(folder, synset)} is {what}")
        for picture in _visible(os.path.join(folder, synset)):
            impath = os.path.join(folder, synset, picture)
            items.append(Datum(impath=impath, label=labels[synset], classname=names[synset]))
    missing = sorted(labels.keys() - own.keys())
    if missing:
        print(f"Note: {len(missing)} classes have no folder in {folder}, {missing[0]} first: nothing is tested on them")
    return items


def _visible(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


@DATASET_REGISTRY.register()
class ImageNet(FewShotDataset):
    folder = "imagenet"

    def read(self, cfg: CfgNode) -> tuple[Items, Items, Items]:
        names = read_classnames(self)
        train, test = (self.require(os.path.join(self.dataset_dir, "images", part)) for part in ("train", "val"))
        labels = labels_of(train)
        return read_folders(train, names), [], read_folders(test, names, labels)


class ImageNetVariant(FewShotDataset):
    """Test pictures in folders named by synset, some or all of ImageNet's classes."""

    test_only = True

    def read(self, cfg: CfgNode) -> tuple[Items, Items, Items]:
        items = read_folders(self.require(self.image_dir), read_classnames(self))
        return items, [], items
