"""Options of PromptFL."""

from dataclasses import dataclass

from ..coop.options import CoOpModelOptions
from ..core.federated.options import FederationOptions
from ..options import PRECISIONS, option


@dataclass(frozen=True)
class PromptFLOptions(FederationOptions, CoOpModelOptions):
    """Those of CoOp's model and of a federation."""

    KEY = "PROMPTFL"

    prec: str = option("fp32", "precision", among=PRECISIONS)
