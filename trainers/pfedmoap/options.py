"""Options of pFedMoAP."""

from dataclasses import dataclass

from ..coop.options import CoOpModelOptions
from ..core.federated.options import FederationOptions
from ..options import PRECISIONS, Options, option


@dataclass(frozen=True)
class GateOptions(Options):
    """The attention over experts, with the authors' values."""

    gate_width: int = option(128, "numbers of a feature that the gate sees: every (D / width)-th", least=1)
    gate_heads: int = option(8, "heads of its attention", least=1)
    gate_scale: float = option(10.0, "its scores are this times q k", above=0)
    local_weight: float = option(0.5, "lambda, of the logits of the client's own prompt", least=0)


@dataclass(frozen=True)
class PFedMoAPOptions(FederationOptions, GateOptions, CoOpModelOptions):
    """pFedMoAP's settings."""

    KEY = "PFEDMOAP"

    experts: int = option(10, "experts of a client: its own prompt, and those of others", least=2)
    select: str = option(
        "nearest",
        "whose prompts: of those nearest to the client's own, as in the paper, or, as in its code, the first of an order "
        "that is drawn once",
        among=("nearest", "random"),
    )
    gate_lr_mult: float = option(5.0, "times the learning rate, for the gate", least=0)
    prec: str = option("fp32", "precision", among=PRECISIONS)
