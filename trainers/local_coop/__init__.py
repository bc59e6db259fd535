"""CoOp at each client alone: what a federation has to beat."""

from ..options import Method
from .options import LocalCoOpOptions

METHODS = (
    Method(
        "local_coop", "LocalCoOp", "CoOpCLIP", "CoOp, each client alone", options=LocalCoOpOptions,
        knows_new_classes=False, federated=True, place=79,
    ),
)  # fmt: skip
