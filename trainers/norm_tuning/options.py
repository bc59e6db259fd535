"""Options of the LayerNorms alone."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class NormTuningOptions(Options):
    KEY = "NORMTUNING"

    prec: str = option("amp", "precision", among=PRECISIONS)
    grad_clip: float | None = option(
        None, "largest norm of the gradients, 0 for any; None: 1.0 under PREC amp, else any, as in MoCoOp", least=0
    )
