"""Options of CoCoOp."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class CoCoOpModelOptions(Options):
    """How CoCoOpCLIP is made, under its authors' names."""

    n_ctx: int = option(16, "context tokens, where CTX_INIT is empty", least=1, needs={"ctx_init": ("",)})
    ctx_init: str = option("", "words to start from; empty: random vectors (std 0.02)")
    ctx_count: str = option(
        "tokens", "what of CTX_INIT is learned, see CoOp's", among=("tokens", "words"), unless={"ctx_init": ("",)}
    )


@dataclass(frozen=True)
class CoCoOpOptions(CoCoOpModelOptions):
    """CoCoOp's settings."""

    KEY = "COCOOP"

    prec: str = option("fp16", "precision", among=PRECISIONS)
