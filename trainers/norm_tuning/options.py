"""Options of the LayerNorms alone."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class NormTuningOptions(Options):
    KEY = "NORMTUNING"

    prec: str = option("amp", "precision", among=PRECISIONS)
