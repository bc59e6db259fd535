"""CoCoOp: conditional context optimisation (Zhou, Yang, Loy, Liu, CVPR 2022).

Each picture shifts the context: ctx + meta_net(f). One set of text features per picture, so nothing can be kept in
evaluation; the prefix SOS + context is shared by a picture's classes.

Shapes: B pictures, C classes, M context tokens, W width of the text transformer, D features, H x W pixels.
"""

from ..core.settings.configure import declaring
from ..core.training.context_trainer import ContextTrainer
from ..core.training.trainer import register
from .model import CoCoOpCLIP
from .options import CoCoOpModelOptions, CoCoOpOptions


@register
class CoCoOp(ContextTrainer):
    """Trains CoCoOpCLIP with cross-entropy."""

    def build_model(self) -> None:
        o = self.options
        model = CoCoOpCLIP(self.load_clip(), self.classnames, **o.keywords(CoCoOpModelOptions), **self.encoder_options)
        self.model = model
        self.print_context(model.ctx)
        self.finish_model()


add_config = declaring(CoCoOpOptions)
