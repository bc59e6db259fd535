"""PromptFL: federated averaging of CoOp's context (Guo, Guo, Song et al., IEEE Transactions on Mobile Computing 2023).

Each client trains the context on its own pictures for some epochs, from the mean that the server sends; the server takes
the mean of what comes back, weighted by pictures.
"""

from ..coop.trainer import CoOp
from ..core.federated.trainer import FederatedTrainer
from ..core.settings.configure import declaring
from ..core.training.trainer import register
from .options import PromptFLOptions


@register
class PromptFL(FederatedTrainer, CoOp):
    """The mean of the clients' contexts is everybody's."""


add_config = declaring(PromptFLOptions)
