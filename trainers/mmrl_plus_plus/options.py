"""Options of MMRL++, with its authors' values."""

from dataclasses import dataclass

from ..mmrl.options import HeldOptions, MmrlModelOptions
from ..options import option


@dataclass(frozen=True)
class MmrlPlusPlusModelOptions(MmrlModelOptions):
    """How MmrlPlusPlusCLIP is made."""

    map_rank: int = option(4, "rank of what a block adds to the maps that all share", least=1)
    proj_rank: int = option(64, "rank of what the tokens' projection adds to CLIP's own", least=1)


@dataclass(frozen=True)
class MmrlPlusPlusOptions(HeldOptions, MmrlPlusPlusModelOptions):
    KEY = "MMRLPP"

    dim: int = option(512, "width of the shared tokens", least=1)
    beta: float | None = option(
        None,
        "share of a block's own tokens, beside what the last block has made of those before; None: the authors' for the "
        "dataset (by_dataset.yaml)",
        least=0,
        most=1,
    )
