"""FedPer (Arivazhagan et al., 2019) on PromptFL."""

from ..options import Method
from .options import FedPerOptions

METHODS = (
    Method(
        "fedper", "FedPer", "CoOpCLIP", "PromptFL + FedPer", options=FedPerOptions,
        knows_new_classes=False, federated=True, place=82,
    ),
)  # fmt: skip
