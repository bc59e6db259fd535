"""Options of CoOp."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class CoOpModelOptions(Options):
    """How CoOpCLIP is made, under its authors' names."""

    n_ctx: int = option(16, "context tokens, where CTX_INIT is empty", least=1, needs={"ctx_init": ("",)})
    ctx_init: str = option("", "words to start from; empty: random vectors (std 0.02)")
    ctx_count: str = option(
        "tokens",
        "what of CTX_INIT is learned: all its tokens, or, as CoOp counts, one token a word and the rest fixed",
        among=("tokens", "words"),
        unless={"ctx_init": ("",)},
    )
    csc: bool = option(
        False, "class-specific contexts; words start one context for all, as in CoOp", needs={"ctx_init": ("",)}
    )
    class_token_position: str = option("end", "of the class name in the context", among=("end", "middle", "front"))


@dataclass(frozen=True)
class CoOpOptions(CoOpModelOptions):
    """CoOp's settings."""

    KEY = "COOP"

    prec: str = option("fp16", "precision", among=PRECISIONS)
