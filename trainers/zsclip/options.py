"""Options of the methods that only read templates."""

from dataclasses import dataclass

from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class HardMixtureOptions(Options):
    KEY = "HARDMIXTURE"

    read: str = option(
        "joint",
        "how the groups' logits become one per class: logsumexp over the groups, or their mean",
        among=("joint", "mean"),
    )
    prec: str = option("fp32", "precision", among=PRECISIONS)
