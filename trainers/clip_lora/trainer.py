"""CLIP-LoRA: low-rank additions to the attention of both towers (Zanella, Ben Ayed, CVPR Workshops 2024)."""

from ..core.settings.configure import declaring
from ..core.training.steps_per_shot import StepsPerShot
from ..core.training.trainer import register
from .model import LoraCLIP
from .options import ClipLoraOptions, LoraOptions


@register
class CLIPLoRA(StepsPerShot):
    """Trains LoraCLIP with cross-entropy."""

    def build_model(self) -> None:
        (template,) = self.templates_of(self.cfg)
        o = self.options.keywords(LoraOptions)
        self.model = LoraCLIP(self.load_clip(), self.classnames, template, **o, **self.encoder_options)
        self.finish_model()


add_config = declaring(ClipLoraOptions)
