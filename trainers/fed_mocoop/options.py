"""Options of MoCoOp in a federation."""

from dataclasses import dataclass

from ..core.federated.options import FederationOptions
from ..mocoop.options import MoCoOpOptions


@dataclass(frozen=True)
class FedMoCoOpOptions(FederationOptions, MoCoOpOptions):
    """Those of a federation and of MoCoOp."""

    KEY = "FEDMOCOOP"
