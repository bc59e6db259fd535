"""Options of CoOp at each client alone."""

from dataclasses import dataclass

from ..promptfl.options import PromptFLOptions


@dataclass(frozen=True)
class LocalCoOpOptions(PromptFLOptions):
    """Those of PromptFL."""

    KEY = "LOCALCOOP"
