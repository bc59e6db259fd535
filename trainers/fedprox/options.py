"""Options of FedProx on PromptFL."""

from dataclasses import dataclass

from ..options import option
from ..promptfl.options import PromptFLOptions


@dataclass(frozen=True)
class FedProxOptions(PromptFLOptions):
    """Those of PromptFL, and the weight of the proximal term."""

    KEY = "FEDPROX"

    mu: float = option(0.5, "of mu/2 |w - w_received|^2, which is added to a client's loss", least=0)
