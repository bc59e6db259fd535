"""Options of MMRL++, with its authors' values."""

from dataclasses import dataclass

from ..mmrl.options import MmrlModelOptions
from ..options import PRECISIONS, option


@dataclass(frozen=True)
class MmrlPlusPlusModelOptions(MmrlModelOptions):
    """How MmrlPlusPlusCLIP is made."""

    map_rank: int = option(4, "rank of what a block adds to the maps that all share", least=1)
    proj_rank: int = option(64, "rank of what the tokens' projection adds to CLIP's own", least=1)


@dataclass(frozen=True)
class MmrlPlusPlusOptions(MmrlPlusPlusModelOptions):
    KEY = "MMRLPP"

    dim: int = option(512, "width of the shared tokens", least=1)
    beta: float | None = option(
        None,
        "share of a block's own tokens, beside what the last block has made of those before; None: the authors' for the "
        "dataset (by_dataset.yaml)",
        least=0,
        most=1,
    )
    reg_weight: float | None = option(
        None, "weight of 1 - cos to CLIP's own features; None: the authors' for the dataset", least=0
    )
    heads: str = option(
        "told",
        "which heads answer: told, both for the classes of training, the class token's for others; or either",
        among=("told", "both", "class"),
    )
    prec: str = option("amp", "precision", among=PRECISIONS)
