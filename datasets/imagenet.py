"""ImageNet (Deng et al., 2009): 1,000 classes; its validation set is the test set, as everywhere."""

import os

from dassl.data.datasets import DATASET_REGISTRY, Datum
from yacs.config import CfgNode

from .few_shot import FewShotDataset, Items


def read_classnames(dataset: FewShotDataset) -> dict[str, str]:
    """classnames.txt, a line of folder and class name each, of the dataset itself or of ImageNet beside it."""
    own = os.path.join(dataset.dataset_dir, "classnames.txt")
    shared = os.path.join(os.path.dirname(dataset.dataset_dir), "imagenet", "classnames.txt")
    path = own if os.path.exists(own) else dataset.require(shared)
    return read_pairs(path)


def read_pairs(path: str) -> dict[str, str]:
    """A file with a line of folder and class name each. Raises ValueError for anything else."""
    with open(path) as file:
        pairs = [line.strip().split(" ", 1) for line in file if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f'{path} is no list of class names: expected lines like "n01440764 tench"')
    return dict(pairs)


def read_folders(folder: str, names: dict[str, str]) -> Items:
    """Pictures in folders named by synset; the label is the folder's place in alphabetical order."""
    items = []
    for label, synset in enumerate(sorted(e.name for e in os.scandir(folder) if e.is_dir())):
        if synset not in names:
            raise ValueError(f"{os.path.join(folder, synset)} is no class of classnames.txt")
        for picture in _visible(os.path.join(folder, synset)):
            items.append(Datum(impath=os.path.join(folder, synset, picture), label=label, classname=names[synset]))
    return items


def _visible(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


@DATASET_REGISTRY.register()
class ImageNet(FewShotDataset):
    folder = "imagenet"

    def read(self, cfg: CfgNode) -> tuple[Items, Items, Items]:
        names = read_classnames(self)
        train, test = (
            read_folders(self.require(os.path.join(self.dataset_dir, "images", part)), names)
            for part in ("train", "val")
        )
        return train, [], test


class ImageNetVariant(FewShotDataset):
    """Test pictures in folders named by synset, some or all of ImageNet's classes."""

    test_only = True

    def read(self, cfg: CfgNode) -> tuple[Items, Items, Items]:
        items = read_folders(self.require(self.image_dir), read_classnames(self))
        return items, [], items
