"""FedProx (Li et al., MLSys 2020) on PromptFL."""

from ..options import Method
from .options import FedProxOptions

METHODS = (
    Method(
        "fedprox", "FedProx", "CoOpCLIP", "PromptFL + FedProx", options=FedProxOptions,
        knows_new_classes=False, federated=True, place=81,
    ),
)  # fmt: skip
