"""CoOp at each client alone: the rounds of PromptFL, in which nothing is sent."""

import torch

from ..core.settings.configure import declaring
from ..core.training.trainer import register
from ..promptfl.trainer import PromptFL
from .options import LocalCoOpOptions


@register
class LocalCoOp(PromptFL):
    """Each client keeps its context."""

    def shared(self) -> dict[str, torch.Tensor]:
        return {}

    def private(self) -> dict[str, torch.Tensor]:
        return dict(self.model.trainable())


add_config = declaring(LocalCoOpOptions)
