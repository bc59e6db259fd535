"""Food-101 (Bossard et al., 2014): 101 classes of dishes."""

from dassl.data.datasets import DATASET_REGISTRY

from .few_shot import FewShotDataset


@DATASET_REGISTRY.register()
class Food101(FewShotDataset):
    folder = "food-101"
    image_folder = "images"
    split_file = "split_zhou_Food101.json"
    command_name = "food101"
