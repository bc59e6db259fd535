"""Options of ProGrad, with its authors' values."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class ProGradOptions(Options):
    KEY = "PROGRAD"

    n_ctx: int = option(16, "context tokens", least=1)
    from_template: bool = option(
        True, "start the last tokens from the words of the dataset's template, the others at zero; False: all at random"
    )
    projection: float = option(1.0, "lambda: the part of a conflicting gradient that is taken out", least=0)
    temperature: float = option(1.0, "of both predictions in the guiding loss", above=0)
    prec: str = option("fp16", "precision", among=PRECISIONS)
