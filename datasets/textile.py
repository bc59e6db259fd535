"""Textile: simulated pictures of woven textile, nominal, with a local and with a global defect (Megahed et al., 2025)."""

from dassl.data.datasets import DATASET_REGISTRY

from .few_shot import FewShotDataset


@DATASET_REGISTRY.register()
class Textile(FewShotDataset):
    folder = "textile"
    image_folder = "images"
    split_file = "split_textile.json"
