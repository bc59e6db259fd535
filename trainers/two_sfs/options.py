"""Options of 2SFS, with its authors' values."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class TwoSfsOptions(Options):
    KEY = "TWOSFS"

    first_stage: float = option(
        0.6, "share of the steps that train LayerNorms; the rest trains the classifier", above=0, most=1
    )
    steps_per_shot: int = option(
        300, "training steps per shot, which set OPTIM.MAX_EPOCH; 0: OPTIM.MAX_EPOCH as it is given", least=0
    )
    prec: str = option("amp", "precision", among=PRECISIONS)
