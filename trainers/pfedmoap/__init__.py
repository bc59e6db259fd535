"""pFedMoAP: a mixture of other clients' prompts for each client (Luo, Chen, Wu, ICLR 2025)."""

from ..options import Method
from .options import PFedMoAPOptions

METHODS = (
    Method(
        "pfedmoap", "PFedMoAP", "ExpertsCLIP", "pFedMoAP", options=PFedMoAPOptions,
        knows_new_classes=False, federated=True, place=83,
    ),
)  # fmt: skip
