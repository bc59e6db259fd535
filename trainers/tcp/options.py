"""Options of TCP, with its authors' values."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class TcpModelOptions(Options):
    """How TcpCLIP is made."""

    n_ctx: int = option(4, "context tokens, and class tokens that take their place", least=1)
    block: int = option(8, "of the text tower, from 0, before which class tokens take the context's place", least=1)
    reduction: int = option(
        4, "how many times narrower than features the middle of the class tokens' network is", least=1
    )


@dataclass(frozen=True)
class TcpOptions(TcpModelOptions):
    KEY = "TCP"

    w: float = option(8.0, "weight of 1 - cos between the prompts' features and CLIP's own", least=0)
    prec: str = option("fp16", "precision", among=PRECISIONS)
