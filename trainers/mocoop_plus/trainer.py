"""MoCoOp+: MoCoOp whose prompts are anchored, with a head on image features (core/heads/text_means.py)."""

from ..core.settings.configure import declaring
from ..core.training.trainer import register
from ..mocoop.trainer import MoCoOp
from .options import MoCoOpPlusOptions


@register
class MoCoOpPlus(MoCoOp):
    """Trains MixtureCLIP by L = L_cls + 50 mean_gc (1 - <w_gc, p_gc>) + L_gate, and then fits the head to the shots."""


add_config = declaring(MoCoOpPlusOptions)
