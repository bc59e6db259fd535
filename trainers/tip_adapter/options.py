"""Options of Tip-Adapter."""

from dataclasses import dataclass

from ..core.heads.options import HeadOptions
from ..options import option


@dataclass(frozen=True)
class TipAdapterOptions(HeadOptions):
    KEY = "TIPADAPTER"

    beta_max: float | None = option(
        None, "sharpness up to which beta is searched; None: the authors' for the dataset (by_dataset.yaml)", above=0.1
    )
    alpha_max: float | None = option(
        None, "weight of the cache up to which alpha is searched; None: the authors' for the dataset", above=0.1
    )
    alpha: float | None = option(
        None, "weight to start from, or where nothing can be chosen; None: the authors' for the dataset", least=0
    )
