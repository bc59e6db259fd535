"""CoCoOp: conditional context optimisation (Zhou, Yang, Loy, Liu, CVPR 2022).

Each picture shifts the context: ctx + meta_net(f). One set of text features per picture, so nothing can be kept in
evaluation; the prefix SOS + context is shared by a picture's classes.

Shapes: B pictures, C classes, M context tokens, W width of the text transformer, D features, H x W pixels.
"""

import torch
from dassl.engine import TRAINER_REGISTRY
from torch.nn import functional as F

from ..core.clip.losses import accuracy
from ..core.clip.prompts import described, with_count_of
from ..core.settings.configure import declaring
from ..core.training.trainer import PromptTrainer
from .model import CoCoOpCLIP
from .options import CoCoOpModelOptions, CoCoOpOptions


@TRAINER_REGISTRY.register()
class CoCoOp(PromptTrainer):
    """Trains CoCoOpCLIP with cross-entropy."""

    def build_model(self) -> None:
        o = self.options
        model = CoCoOpCLIP(self.load_clip(), self.classnames, **o.keywords(CoCoOpModelOptions), **self.encoder_options)
        self.model = model
        print(described(o.ctx_init, o.ctx_count, model.ctx.shape[-2]))
        self.finish_model()

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits_BC = self.model(images)
        return F.cross_entropy(logits_BC, labels), {"acc": accuracy(logits_BC, labels)}

    def adopt(self, identity: dict, tensors: dict[str, torch.Tensor]) -> None:
        self.options = with_count_of(tensors.get("ctx"), self.options, self.model.vocabulary)
        if self.options.ctx_count != self.model.options.ctx_count:
            self.rebuild_model()


add_config = declaring(CoCoOpOptions)
