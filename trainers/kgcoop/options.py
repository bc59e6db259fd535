"""Options of KgCoOp."""

from dataclasses import dataclass

from ..coop.options import CoOpOptions
from ..options import option


@dataclass(frozen=True)
class KgCoOpOptions(CoOpOptions):
    """CoOp's, and the weight of the distance, with the authors' values."""

    KEY = "KGCOOP"  # the settings are TRAINER.KGCOOP.CTX_INIT, .W and so on

    ctx_init: str = option("a photo of a", "words to start from")
    w: float = option(8.0, "weight of 1 - cos between soft and hard prompts' features", least=0)
