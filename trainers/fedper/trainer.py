"""FedPer (Arivazhagan, Aggarwal, Singh, Choudhary, "Federated Learning with Personalization Layers", 2019) on PromptFL.

Its layers near the input are shared and those near the output personal; of a context, which has one layer, the first
tokens are shared and the last ones personal.
"""

import torch

from ..core.settings.configure import declaring
from ..core.training.trainer import register
from ..promptfl.trainer import PromptFL
from .options import FedPerOptions


@register
class FedPer(PromptFL):
    """Each client keeps the last tokens of its context."""

    def build_model(self) -> None:
        super().build_model()
        tokens = self.model.ctx.shape[-2]
        if self.options.personal_tokens > tokens:
            raise ValueError(f"PERSONAL_TOKENS is {self.options.personal_tokens}, but the context has {tokens} tokens")

    def _at(self) -> int:
        return self.model.ctx.shape[-2] - self.options.personal_tokens

    def shared(self) -> dict[str, torch.Tensor]:
        return {"ctx": self.model.ctx[..., : self._at(), :]}

    def private(self) -> dict[str, torch.Tensor]:
        return {"own_ctx": self.model.ctx[..., self._at() :, :]}


add_config = declaring(FedPerOptions)
