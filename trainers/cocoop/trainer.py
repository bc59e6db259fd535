"""CoCoOp: conditional context optimisation (Zhou, Yang, Loy, Liu, CVPR 2022).

Each picture shifts the context: ctx + meta_net(f). One set of text features per picture, so nothing can be kept in
evaluation; the prefix SOS + context is shared by a picture's classes.

Shapes: B pictures, C classes, M context tokens, W width of the text transformer, D features, H x W pixels.
"""

import torch
from torch.nn import functional as F

from ..core.clip.losses import accuracy
from ..core.settings.configure import declaring
from ..core.training.context_trainer import ContextTrainer
from ..core.training.trainer import register
from .model import CoCoOpCLIP
from .options import CoCoOpModelOptions, CoCoOpOptions


@register
class CoCoOp(ContextTrainer):
    """Trains CoCoOpCLIP with cross-entropy."""

    def build_model(self) -> None:
        o = self.options
        model = CoCoOpCLIP(self.load_clip(), self.classnames, **o.keywords(CoCoOpModelOptions), **self.encoder_options)
        self.model = model
        self.print_context(model.ctx)
        self.finish_model()

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits_BC = self.model(images)
        return F.cross_entropy(logits_BC, labels), {"acc": accuracy(logits_BC, labels)}


add_config = declaring(CoCoOpOptions)
