"""Options of the linear probe."""

from dataclasses import dataclass

from ..options import Options, option


@dataclass(frozen=True)
class LinearProbeOptions(Options):
    KEY = "LINEARPROBE"

    search: str = option(
        "neighbours",
        "of C, from the best of a coarse grid on: with both neighbours each time, or by halving as CoOp's lpclip does, "
        "which forgets where it came from",
        among=("neighbours", "coop"),
    )
