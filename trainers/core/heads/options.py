"""Options of heads on frozen features."""

from dataclasses import dataclass

from ...options import PRECISIONS, Options, option


@dataclass(frozen=True)
class HeadOptions(Options):
    views: int = option(
        10, "augmented views of each training picture (INPUT.TRANSFORMS); 0: the picture as it is tested", least=0
    )
    search_on: str = option(
        "val",
        "what its constants are chosen on: validation pictures (where there are none, shots); shots, by cross-validation; "
        "or test, as published, which says nothing about other pictures",
        among=("val", "shots", "test"),
    )
    prec: str = option("fp32", "precision", among=PRECISIONS)
