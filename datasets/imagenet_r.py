"""ImageNet-R (Hendrycks et al., 2021): renditions of 200 classes."""

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet import ImageNetVariant


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetVariant):
    folder = "imagenet-rendition"
    image_folder = "imagenet-r"
    command_name = "imagenet_r"
