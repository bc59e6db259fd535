"""MMRL++: MMRL with shared maps, low-rank additions for each block, and tokens that flow on (Guo, Gu, IJCV 2026)."""

from ..options import Method
from .options import MmrlPlusPlusOptions

METHODS = (
    Method(
        "mmrl_plus_plus", "MMRLpp", "MmrlPlusPlusCLIP", "MMRL++", MmrlPlusPlusOptions, place=51, templates=("TEMPLATE",),
        told_which_classes=True, settings_by_dataset=True,
    ),
)  # fmt: skip
