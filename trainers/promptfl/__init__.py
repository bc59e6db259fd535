"""PromptFL: federated averaging of CoOp's context (Guo et al., IEEE TMC 2023)."""

from ..options import Method
from .options import PromptFLOptions

METHODS = (
    Method("promptfl", "PromptFL", "CoOpCLIP", options=PromptFLOptions, knows_new_classes=False, federated=True, place=80),
)  # fmt: skip
