"""LayerNorms of the picture tower alone, by fixed text, with a head: the cheapest thing that is trained."""

from ..options import HEADS, Method
from .options import NormTuningOptions

METHODS = (
    Method(
        "norm_tuning", "NormTuning", "NormTunedCLIP", "LayerNorms + head", NormTuningOptions, heads=HEADS[::-1], place=62,
        templates=("TEMPLATE",), ablations={"full": (), "no_head": ("MODEL.HEAD.NAME", "none")},
    ),
)  # fmt: skip
