"""CLIP-LoRA: low-rank additions to the attention of both towers (Zanella, Ben Ayed, CVPR Workshops 2024)."""

import math

from yacs.config import CfgNode

from ..core.settings.configure import declaring
from ..core.training.trainer import PromptTrainer, register
from .model import LoraCLIP
from .options import ClipLoraOptions, LoraOptions

TEMPLATE = "a photo of a {}."  # for every data set


@register
class CLIPLoRA(PromptTrainer):
    """Trains LoraCLIP with cross-entropy."""

    draws_in_steps = True  # masks of dropout

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        return [cfg.DATASET.TEMPLATE or TEMPLATE]

    def identity(self) -> dict:
        return super().identity() | {"templates": self.templates_of(self.cfg)}

    def build_data_loader(self) -> None:
        """With STEPS_PER_SHOT, the epochs are as many as make so many steps."""
        super().build_data_loader()
        if self.options.steps_per_shot:
            steps = self.options.steps_per_shot * max(1, self.cfg.DATASET.NUM_SHOTS)
            self.cfg.defrost()
            self.cfg.OPTIM.MAX_EPOCH = self.max_epoch = math.ceil(steps / len(self.train_loader_x))
            self.cfg.freeze()
            print(f"{steps:,} steps or a few more: {self.max_epoch} epochs")

    def build_model(self) -> None:
        (template,) = self.templates_of(self.cfg)
        o = self.options.keywords(LoraOptions)
        self.model = LoraCLIP(self.load_clip(), self.classnames, template, **o, **self.encoder_options)
        self.finish_model()


add_config = declaring(ClipLoraOptions)
