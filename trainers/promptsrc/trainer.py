"""PromptSRC: self-regulating prompts (Khattak et al., ICCV 2023).

Shapes: B pictures, C classes, H x W pixels.
"""

from pathlib import Path

import torch
from yacs.config import CfgNode

from ..core.clip.losses import accuracy
from ..core.settings.configure import declaring
from ..core.settings.text_files import read_yaml
from ..core.training.averaging import EpochAverage, gaussian
from ..core.training.trainer import PromptTrainer, register
from ..ivlp.options import DeepOptions
from .model import PromptSrcCLIP
from .options import PromptSrcOptions


@register
class PromptSRC(PromptTrainer):
    """Trains PromptSrcCLIP: L = L_cls + TEXT_LOSS_WEIGHT L_text + IMAGE_LOSS_WEIGHT L_image + LOGIT_LOSS_WEIGHT L_logits.

    What is trained is averaged over epochs, with the weights of a normal density around GPA_MEAN.
    """

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        return read_yaml(Path(__file__).with_name("templates.yaml"))

    def build_model(self) -> None:
        o = self.options
        self.average = EpochAverage(gaussian(self.cfg.OPTIM.MAX_EPOCH, o.gpa_mean, o.gpa_std))
        self.model = PromptSrcCLIP(
            self.load_clip(),
            self.classnames,
            self.templates_of(self.cfg),
            **o.keywords(DeepOptions),
            **self.encoder_options,
        )
        print(o.in_words())
        self.finish_model()

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        parts, o = self.model.losses(images, labels), self.options
        loss = parts["cls"] + o.text_loss_weight * parts["text"] + o.image_loss_weight * parts["image"]
        shown = {f"loss_{name}": parts[name] for name in ("cls", "text", "image", "logits")}
        return loss + o.logit_loss_weight * parts["logits"], shown | {"acc": accuracy(parts["logits_BC"], labels)}


add_config = declaring(PromptSrcOptions)
