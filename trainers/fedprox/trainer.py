"""FedProx (Li, Sahu, Zaheer et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020) on PromptFL."""

import torch

from ..core.settings.configure import declaring
from ..core.training.trainer import register
from ..promptfl.trainer import PromptFL
from .options import FedProxOptions


@register
class FedProx(PromptFL):
    """A client's loss holds mu/2 |w - w_received|^2."""

    def proximal(self, received: dict[str, torch.Tensor]) -> torch.Tensor:
        distances = [(tensor - received[name]).square().sum() for name, tensor in self.shared().items()]
        return 0.5 * self.options.mu * torch.stack(distances).sum()


add_config = declaring(FedProxOptions)
