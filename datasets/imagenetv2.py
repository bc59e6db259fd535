"""ImageNetV2 (Recht et al., 2019): new photographs of ImageNet's 1,000 classes, in folders named by label."""

import os

from dassl.data.datasets import DATASET_REGISTRY, Datum
from yacs.config import CfgNode

from .few_shot import FewShotDataset, Items
from .imagenet import _visible, read_classnames


@DATASET_REGISTRY.register()
class ImageNetV2(FewShotDataset):
    folder = "imagenetv2"
    image_folder = "imagenetv2-matched-frequency-format-val"
    test_only = True

    def read(self, cfg: CfgNode) -> tuple[Items, Items, Items]:
        names = [name for _, name in sorted(read_classnames(self).items())]  # a label is a place among the synsets
        folders = {e.name for e in os.scandir(self.require(self.image_dir)) if e.is_dir() and e.name[0] != "."}
        odd = folders ^ set(map(str, range(len(names))))
        if odd:
            raise ValueError(
                f"{self.image_dir} has {len(folders)} folders for the {len(names)} classes of classnames.txt, and not "
                f'the same ("{min(odd)}"): labels would be off'
            )
        items = [
            Datum(impath=os.path.join(self.image_dir, str(label), picture), label=label, classname=name)
            for label, name in enumerate(names)
            for picture in _visible(os.path.join(self.image_dir, str(label)))
        ]
        return items, [], items
