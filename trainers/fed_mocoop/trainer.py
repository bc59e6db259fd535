"""MoCoOp in a federation. Ours: nobody has published it.

The experts (soft prompts, delta, visual LayerNorms) are what all clients learn together; the router, which says what a
client's pictures look like, stays with it.
"""

import torch

from ..core.federated.trainer import FederatedTrainer
from ..core.settings.configure import declaring
from ..core.training.trainer import register
from ..mocoop.trainer import MoCoOp
from .options import FedMoCoOpOptions


@register
class FedMoCoOp(FederatedTrainer, MoCoOp):
    """Experts are shared, routers private."""

    def shared(self) -> dict[str, torch.Tensor]:
        return {name: p for name, p in self.model.trainable().items() if not name.startswith("router.")}

    def private(self) -> dict[str, torch.Tensor]:
        return {name: p for name, p in self.model.trainable().items() if name.startswith("router.")}


add_config = declaring(FedMoCoOpOptions)
