"""Tip-Adapter-F: Tip-Adapter with trained keys (Zhang et al., ECCV 2022)."""

from ..options import Method
from .options import TipAdapterFOptions

METHODS = (
    Method(
        "tip_adapter_f", "TipAdapterF", "TrainedTipCLIP", "Tip-Adapter-F", TipAdapterFOptions, knows_new_classes=False,
        chooses_on_validation=True, place=22, templates=("TEMPLATE",), settings_by_dataset=True,
    ),
)  # fmt: skip
