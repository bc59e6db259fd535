"""Options of MMRL, with its authors' values."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class MmrlModelOptions(Options):
    """How MmrlCLIP is made."""

    n_tokens: int = option(5, "representation tokens", least=1)
    first_block: int = option(
        5, "the first block of both towers, from 0, to get tokens; all later ones do, too", least=0
    )
    alpha: float = option(0.7, "weight of the class token's head; the other head has the rest", least=0, most=1)


@dataclass(frozen=True)
class HeldOptions(Options):
    """What MMRL and MMRL++ are told besides."""

    reg_weight: float | None = option(
        None, "weight of 1 - cos to CLIP's own features; None: the authors' for the dataset", least=0
    )
    heads: str = option(
        "told",
        "which heads answer: told, both for the classes of training, the class token's for others; or either",
        among=("told", "both", "class"),
    )
    prec: str = option("amp", "precision", among=PRECISIONS)


@dataclass(frozen=True)
class MmrlOptions(HeldOptions, MmrlModelOptions):
    KEY = "MMRL"

    dim: int | None = option(
        None, "width of the shared tokens; None: the authors' for the dataset (by_dataset.yaml)", least=1
    )
