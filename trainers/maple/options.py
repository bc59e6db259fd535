"""Options of MaPLe, with its authors' values."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class MapleModelOptions(Options):
    """How MapleCLIP is made, under its authors' names."""

    n_ctx: int = option(2, "prompt tokens of each tower", least=1)
    ctx_init: str = option(
        "a photo of a", "words whose first tokens start the context; empty: random vectors (std 0.02)"
    )
    prompt_depth: int = option(9, "blocks of both towers with prompts of their own", least=1)


@dataclass(frozen=True)
class MapleOptions(MapleModelOptions):
    KEY = "MAPLE"

    prec: str = option("fp16", "precision", among=PRECISIONS)
