"""MMRL: multi-modal representation learning (Guo, Gu, CVPR 2025)."""

from ..options import Method
from .options import MmrlOptions

METHODS = (
    Method(
        "mmrl",
        "MMRL",
        "MmrlCLIP",
        options=MmrlOptions,
        told_which_classes=True,
        place=48,
        templates=("TEMPLATE",),
        settings_by_dataset=True,
    ),
)
