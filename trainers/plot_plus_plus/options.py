"""Options of PLOT++, with its authors' values."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class PlotModelOptions(Options):
    """How PlotCLIP is made."""

    n_vision: int = option(4, "visual prompts, for each of which a picture is encoded", least=1)
    n_ctx_vision: int = option(2, "tokens of each", least=1)
    eps: float = option(0.1, "entropy of the transport: its kernel is exp(-cost / eps)", above=0)
    stop: float = option(
        0.01,
        "Sinkhorn's rounds end, after 100 at most, where a batch changes by less in the mean; 0: after 100",
        least=0,
    )


@dataclass(frozen=True)
class PlotOptions(PlotModelOptions):
    KEY = "PLOTPP"

    first_stage: float = option(0.5, "share of the epochs that train visual prompts alone", least=0, most=1)
    prec: str = option("fp16", "precision", among=PRECISIONS)
