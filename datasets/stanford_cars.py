"""Stanford Cars (Krause et al., 2013): 196 classes of cars, the year first ("2012 Tesla Model S")."""

from dassl.data.datasets import DATASET_REGISTRY

from .few_shot import FewShotDataset


@DATASET_REGISTRY.register()
class StanfordCars(FewShotDataset):
    folder = "stanford_cars"
    image_folder = ""
    split_file = "split_zhou_StanfordCars.json"
