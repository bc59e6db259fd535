"""MaPLe: multi-modal prompt learning (Khattak, Rasheed, Maaz, Khan, Khan, CVPR 2023).

Shapes: B pictures, C classes, H x W pixels.
"""

from ..core.settings.configure import declaring
from ..core.training.trainer import PromptTrainer, register
from .model import MapleCLIP
from .options import MapleModelOptions, MapleOptions


@register
class MaPLe(PromptTrainer):
    """Trains MapleCLIP with cross-entropy."""

    def build_model(self) -> None:
        o = self.options
        self.model = MapleCLIP(
            self.load_clip(), self.classnames, **o.keywords(MapleModelOptions), **self.encoder_options
        )
        print(f"Prompts: {o.n_ctx} tokens before each of {o.prompt_depth} blocks of both towers")
        self.finish_model()


add_config = declaring(MapleOptions)
