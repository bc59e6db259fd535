"""EuroSAT (Helber et al., 2019): 10 classes of land use, seen from Sentinel-2."""

from dassl.data.datasets import DATASET_REGISTRY

from .few_shot import FewShotDataset


@DATASET_REGISTRY.register()
class EuroSAT(FewShotDataset):
    folder = "eurosat"
    image_folder = "2750"
    split_file = "split_zhou_EuroSAT.json"
