"""Options of FedPer on PromptFL."""

from dataclasses import dataclass

from ..options import option
from ..promptfl.options import PromptFLOptions


@dataclass(frozen=True)
class FedPerOptions(PromptFLOptions):
    """Those of PromptFL, and how much of the context is personal."""

    KEY = "FEDPER"

    personal_tokens: int = option(2, "context tokens, the last ones, that a client keeps for itself", least=0)
