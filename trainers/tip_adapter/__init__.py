"""Tip-Adapter: a cache of the training pictures (Zhang et al., ECCV 2022)."""

from ..options import Method
from .options import TipAdapterOptions

METHODS = (
    Method(
        "tip_adapter", "TipAdapter", "TipCLIP", "Tip-Adapter", TipAdapterOptions, takes_steps=False,
        knows_new_classes=False, chooses_on_validation=True, place=21, templates=("TEMPLATE",), settings_by_dataset=True,
    ),
)  # fmt: skip
