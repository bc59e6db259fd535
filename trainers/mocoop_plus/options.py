"""Options of MoCoOp+."""

from dataclasses import dataclass

from ..mocoop.options import MoCoOpOptions
from ..options import option


@dataclass(frozen=True)
class MoCoOpPlusOptions(MoCoOpOptions):
    """MoCoOp's, with an anchor in the place of its text loss, which sees the names of the training classes alone."""

    KEY = "MOCOOPPLUS"

    text_loss: str = option(
        "anchor",
        "anchor: 1 - cos between a soft prompt's feature and its group's hard one; or contrastive, MoCoOp's",
        among=("contrastive", "anchor"),
        unless={"text_loss_weight": (0.0,)},
    )
    text_loss_weight: float = option(50.0, "of L_text", least=0)
    text_classes: str = option("train", "class names in the text loss: train, or base and new", among=("all", "train"))
