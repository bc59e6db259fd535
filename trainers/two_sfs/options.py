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
        300, "steps of training for each picture per class; OPTIM.MAX_EPOCH follows; 0: it counts as it is", least=0
    )
    prec: str = option("amp", "precision", among=PRECISIONS)
