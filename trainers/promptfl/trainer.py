"""PromptFL: federated averaging of CoOp's context (Guo, Guo, Song et al., IEEE Transactions on Mobile Computing 2023).

Each client trains the context on its own pictures for some epochs, from the mean that the server sends; the server takes
the mean of what comes back, weighted by pictures.
"""

from ..coop.options import CoOpModelOptions
from ..core.federated.trainer import FederatedTrainer
from ..core.settings.configure import declaring
from ..core.training.context_trainer import ContextTrainer
from ..core.training.trainer import register
from .model import CoOpCLIP
from .options import PromptFLOptions


@register
class PromptFL(FederatedTrainer, ContextTrainer):
    """The mean of the clients' contexts is everybody's."""

    def build_model(self) -> None:
        model = CoOpCLIP(
            self.load_clip(), self.classnames, **self.options.keywords(CoOpModelOptions), **self.encoder_options
        )
        self.model = model
        self.print_context(model.ctx)
        self.finish_model()


add_config = declaring(PromptFLOptions)
