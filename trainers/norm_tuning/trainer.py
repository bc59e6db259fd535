"""LayerNorms of the picture tower alone, by fixed text, with a head."""

from yacs.config import CfgNode

from ..core.settings.configure import declaring
from ..core.settings.templates import template_of
from ..core.training.trainer import PromptTrainer, register
from .model import NormTunedCLIP
from .options import NormTuningOptions


@register
class NormTuning(PromptTrainer):
    """Trains NormTunedCLIP with cross-entropy, and then fits the head to the shots."""

    templates_called = "templates"

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        return [template_of(cfg)]

    def build_model(self) -> None:
        templates = self.templates_of(self.cfg)
        self.model = NormTunedCLIP(self.load_clip(), self.classnames, templates, **self.encoder_options)
        self.finish_model()


add_config = declaring(NormTuningOptions)
