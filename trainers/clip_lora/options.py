"""Options of CLIP-LoRA, with its authors' values."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class LoraOptions(Options):
    """How LoraCLIP is made."""

    rank: int = option(2, "of the additions, r", least=1)
    alpha: float = option(1.0, "the additions are scaled by alpha / sqrt(r)", above=0)
    dropout: float = option(0.25, "share of an addition's inputs that is set to zero in training", least=0, most=0.99)
    towers: str = option("both", "which towers get them", among=("both", "text", "vision"))
    matrices: list[str] = option(["q", "k", "v"], "of each attention that get them", among=("q", "k", "v"))


@dataclass(frozen=True)
class ClipLoraOptions(LoraOptions):
    KEY = "CLIPLORA"

    steps_per_shot: int = option(
        500, "training steps per shot, which set OPTIM.MAX_EPOCH; 0: OPTIM.MAX_EPOCH as it is given", least=0
    )
    prec: str = option("amp", "precision", among=PRECISIONS)
