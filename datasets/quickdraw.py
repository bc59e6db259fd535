"""Quick, Draw!: 345 classes of human sketches, 28 x 28 pixels (Google, CC BY 4.0)."""

from dassl.data.datasets import DATASET_REGISTRY

from .few_shot import FewShotDataset


@DATASET_REGISTRY.register()
class QuickDraw(FewShotDataset):
    folder = "quickdraw"
    image_folder = "images"
    split_file = "split_quickdraw.json"
