"""FGVC-Aircraft (Maji et al., 2013): 100 variants of aircraft."""

import os

from dassl.data.datasets import DATASET_REGISTRY, Datum
from yacs.config import CfgNode

from .few_shot import FewShotDataset, Items


@DATASET_REGISTRY.register()
class FGVCAircraft(FewShotDataset):
    folder = "fgvc_aircraft"
    image_folder = "images"

    def read(self, cfg: CfgNode) -> tuple[Items, Items, Items]:
        with open(self.require(os.path.join(self.dataset_dir, "variants.txt"))) as file:
            labels = {name: label for label, name in enumerate(filter(None, map(str.strip, file)))}
        train, val, test = (self._read_part(part, labels) for part in ("train", "val", "test"))
        return train, val, test

    def _read_part(self, part: str, labels: dict[str, int]) -> Items:
        path = self.require(os.path.join(self.dataset_dir, f"images_variant_{part}.txt"))
        items = []
        with open(path) as file:
            for line in filter(None, map(str.strip, file)):
                number, _, name = line.partition(" ")
                if name not in labels:
                    raise ValueError(f'{path} has the line "{line}", whose variant is not in variants.txt')
                impath = os.path.join(self.image_dir, f"{number}.jpg")
                items.append(Datum(impath=impath, label=labels[name], classname=name))
        return items
