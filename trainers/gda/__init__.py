"""GDA: Gaussian discriminant analysis on CLIP's features, without training (Wang et al., ICLR 2024)."""

from ..options import Method
from .options import GdaOptions

METHODS = (
    Method(
        "gda", "GDA", "GdaCLIP", options=GdaOptions, takes_steps=False, knows_new_classes=False, chooses_on_validation=True,
        place=23, templates=("TEMPLATE",),
    ),
)  # fmt: skip
