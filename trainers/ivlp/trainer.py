"""IVLP: independent prompts in both towers (Rasheed et al., CVPR 2023; Khattak et al., CVPR 2023, as a baseline).

Shapes: B pictures, C classes, H x W pixels.
"""

from ..core.settings.configure import declaring
from ..core.training.trainer import PromptTrainer, register
from .model import IvlpCLIP
from .options import DeepOptions, IvlpOptions


@register
class IVLP(PromptTrainer):
    """Trains IvlpCLIP with cross-entropy."""

    def build_model(self) -> None:
        o = self.options
        self.model = IvlpCLIP(self.load_clip(), self.classnames, **o.keywords(DeepOptions), **self.encoder_options)
        print(o.in_words())
        self.finish_model()


add_config = declaring(IvlpOptions)
