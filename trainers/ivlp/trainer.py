"""IVLP: independent prompts in both towers (Rasheed et al., CVPR 2023; Khattak et al., CVPR 2023, as a baseline).

Shapes: B pictures, C classes, H x W pixels.
"""

import torch
from torch.nn import functional as F

from ..core.clip.losses import accuracy
from ..core.settings.configure import declaring
from ..core.training.trainer import PromptTrainer, register
from .model import IvlpCLIP
from .options import DeepOptions, IvlpOptions


@register
class IVLP(PromptTrainer):
    """Trains IvlpCLIP with cross-entropy."""

    def build_model(self) -> None:
        o = self.options
        self.model = IvlpCLIP(self.load_clip(), self.classnames, **o.keywords(DeepOptions), **self.encoder_options)
        print(f"Prompts: {o.n_ctx_text} tokens before each of {o.prompt_depth_text} blocks of the text tower, "
              f"{o.n_ctx_vision} of {o.prompt_depth_vision} of the picture tower")  # fmt: skip
        self.finish_model()

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits_BC = self.model(images)
        return F.cross_entropy(logits_BC, labels), {"acc": accuracy(logits_BC, labels)}


add_config = declaring(IvlpOptions)
