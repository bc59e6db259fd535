"""MoCoOp+: MoCoOp with an anchor and a head, one setting for all datasets and shots."""

from ..options import HEADS, Method
from .options import MoCoOpPlusOptions

METHODS = (
    Method(
        "mocoop_plus",
        "MoCoOpPlus",
        "MixtureCLIP",
        "MoCoOp+",
        MoCoOpPlusOptions,
        heads=HEADS[::-1],
        place=61,
        templates=("TEMPLATE_GROUPS",),
        ablations={
            "full": (),
            "no_head": ("MODEL.HEAD.NAME", "none"),
            "no_anchor": ("TRAINER.MOCOOPPLUS.TEXT_LOSS_WEIGHT", "0.0"),
            "uniform_router": ("TRAINER.MOCOOPPLUS.ROUTER", "uniform"),
            "top_1": ("TRAINER.MOCOOPPLUS.TOP_K", "1"),
            "no_visual_ln": ("TRAINER.MOCOOPPLUS.TRAIN_VISUAL_LN", "False"),
        },
    ),
)
