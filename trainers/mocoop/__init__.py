"""MoCoOp: mixture-of-prompts learning (Du, Niu, Zhao, Frontiers in AI 2025)."""

from ..options import HEADS, Method
from .options import MoCoOpOptions

METHODS = (
    Method(
        "mocoop",
        "MoCoOp",
        "MixtureCLIP",
        options=MoCoOpOptions,
        heads=HEADS,
        place=60,
        templates=("TEMPLATE_GROUPS",),
        ablations={
            "full": (),
            "uniform_router": ("TRAINER.MOCOOP.ROUTER", "uniform"),
            "no_gate_loss": ("TRAINER.MOCOOP.GATE_LOSS_WEIGHT", "0.0"),
            "no_text_loss": ("TRAINER.MOCOOP.TEXT_LOSS_WEIGHT", "0.0"),
            "no_visual_ln": ("TRAINER.MOCOOP.TRAIN_VISUAL_LN", "False"),
            "top_1": ("TRAINER.MOCOOP.TOP_K", "1"),
            "top_all": ("TRAINER.MOCOOP.TOP_K", "1000"),
            "class_mean_gate": ("TRAINER.MOCOOP.GATE_TARGET", "class_mean"),
        },
    ),
)
