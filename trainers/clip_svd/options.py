"""Options of CLIP-SVD, with its authors' values."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class ClipSvdOptions(Options):
    KEY = "CLIPSVD"

    steps_per_shot: int = option(
        200, "training steps per shot, which set OPTIM.MAX_EPOCH; 0: OPTIM.MAX_EPOCH as it is given", least=0
    )
    swings: bool = option(
        False,
        "the cosine is planned for OPTIM.MAX_EPOCH steps in the place of epochs, so that the rate falls and rises again "
        "and again, as in the authors' base-to-new",
    )
    prec: str = option("amp", "precision", among=PRECISIONS)
