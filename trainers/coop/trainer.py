"""CoOp: context optimisation (Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models", IJCV 2022).

Shapes: B pictures, C classes, M context tokens, W width of the text transformer, D features, H x W pixels.
"""

import torch

from ..core.settings.configure import declaring
from ..core.training.context_trainer import ContextTrainer
from ..core.training.trainer import register
from .model import CoOpCLIP
from .options import CoOpModelOptions, CoOpOptions


@register
class CoOp(ContextTrainer):
    """Trains CoOpCLIP with cross-entropy."""

    TEST_SETTINGS = ("CLASS_TOKEN_POSITION",)

    def build_model(self) -> None:
        o = self.options
        model = CoOpCLIP(self.load_clip(), self.classnames, **o.keywords(CoOpModelOptions), **self.encoder_options)
        self.model = model
        self.print_context(model.ctx)
        self.finish_model()

    def adopt(self, identity: dict, tensors: dict[str, torch.Tensor]) -> None:
        if self.model.ctx.ndim == 3 and identity.get("classnames", self.classnames) != self.classnames:
            raise ValueError("class-specific contexts belong to the classes they were trained on, and these are others")
        super().adopt(identity, tensors)


add_config = declaring(CoOpOptions)
