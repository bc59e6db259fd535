"""ImageNetV2 (Recht et al., 2019): new photographs of ImageNet's 1,000 classes, in folders named by label."""

import os

from dassl.data.datasets import DATASET_REGISTRY, Datum
from yacs.config import CfgNode

from .few_shot import FewShotDataset, Items
from .imagenet import read_classnames


@DATASET_REGISTRY.register()
class ImageNetV2(FewShotDataset):
    folder = "imagenetv2"
    image_folder = "imagenetv2-matched-frequency-format-val"
    test_only = True

    def read(self, cfg: CfgNode) -> tuple[Items, Items, Items]:
        self.require(self.image_dir)
        items = [
            Datum(impath=os.path.join(folder, picture), label=label, classname=name)
            for label, name in enumerate(read_classnames(self).values())
            for folder in [self.require(os.path.join(self.image_dir, str(label)))]
            for picture in sorted(os.listdir(folder))
            if not picture.startswith(".")
        ]
        return items, [], items
