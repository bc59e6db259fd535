"""Caltech101 (Fei-Fei et al., 2004): 100 classes of objects."""

from dassl.data.datasets import DATASET_REGISTRY

from .few_shot import FewShotDataset


@DATASET_REGISTRY.register()
class Caltech101(FewShotDataset):
    folder = "caltech-101"
    image_folder = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"
    command_name = "caltech101"
