"""LP++: a linear probe blended with text, class by class (Huang et al., CVPR 2024)."""

from ..options import Method
from .options import LPPlusPlusOptions

METHODS = (
    Method(
        "lp_plus_plus", "LPPlusPlus", "LPPlusPlusCLIP", "LP++", LPPlusPlusOptions, takes_steps=False,
        knows_new_classes=False, chooses_on_validation=True, place=24, templates=("TEMPLATE",),
    ),
)  # fmt: skip
