"""MaPLe: multi-modal prompt learning (Khattak, Rasheed, Maaz, Khan, Khan, CVPR 2023).

Shapes: B pictures, C classes, H x W pixels.
"""

import torch
from torch.nn import functional as F

from ..core.clip.losses import accuracy
from ..core.settings.configure import declaring
from ..core.training.trainer import PromptTrainer, register
from .model import MapleCLIP
from .options import MapleModelOptions, MapleOptions


@register
class MaPLe(PromptTrainer):
    """Trains MapleCLIP with cross-entropy."""

    def build_model(self) -> None:
        o = self.options
        self.model = MapleCLIP(
            self.load_clip(), self.classnames, **o.keywords(MapleModelOptions), **self.encoder_options
        )
        print(f"Prompts: {o.n_ctx} tokens before each of {o.prompt_depth} blocks of both towers")
        self.finish_model()

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits_BC = self.model(images)
        return F.cross_entropy(logits_BC, labels), {"acc": accuracy(logits_BC, labels)}


add_config = declaring(MapleOptions)
