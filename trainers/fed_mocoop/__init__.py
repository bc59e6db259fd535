"""MoCoOp in a federation: experts are shared, routers stay at the clients. Ours."""

from ..options import Method
from .options import FedMoCoOpOptions

METHODS = (
    Method(
        "fed_mocoop", "FedMoCoOp", "MixtureCLIP", "Federated MoCoOp", options=FedMoCoOpOptions,
        knows_new_classes=False, federated=True, place=84, templates=("TEMPLATE_GROUPS",),
    ),
)  # fmt: skip
