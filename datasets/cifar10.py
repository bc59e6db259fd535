"""CIFAR-10: ten classes of photographs, 32 x 32 pixels (Krizhevsky, 2009)."""

from dassl.data.datasets import DATASET_REGISTRY

from .few_shot import FewShotDataset


@DATASET_REGISTRY.register()
class CIFAR10Photos(FewShotDataset):
    folder = "cifar10"
    image_folder = "images"
    split_file = "split_cifar10.json"
