"""ImageNet-Sketch (Wang et al., 2019): drawings of ImageNet's 1,000 classes."""

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet import ImageNetVariant


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetVariant):
    folder = "imagenet-sketch"
    image_folder = "images"
    command_name = "imagenet_sketch"
