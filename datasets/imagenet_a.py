"""ImageNet-A (Hendrycks et al., 2021): photographs of 200 classes on which ResNets fail."""

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet import ImageNetVariant


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetVariant):
    folder = "imagenet-adversarial"
    image_folder = "imagenet-a"
    command_name = "imagenet_a"
