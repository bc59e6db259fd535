"""CLIP-SVD: the singular values of both towers' matrices are trained (Koleilat, Rivaz, Xiao, 2025)."""

from yacs.config import CfgNode

from ..core.settings.configure import declaring
from ..core.settings.templates import template_of
from ..core.training.steps_per_shot import TEMPLATE, StepsPerShot
from ..core.training.trainer import register
from .model import SvdCLIP
from .options import ClipSvdOptions

PLAIN = ("DescribableTextures", "EuroSAT", "UCF101")  # that have the plain template where classes are halved


@register
class CLIPSVD(StepsPerShot):
    """Trains SvdCLIP with cross-entropy."""

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        halved = cfg.DATASET.SUBSAMPLE_CLASSES != "all"
        plain = halved and cfg.DATASET.NAME in PLAIN and not cfg.DATASET.TEMPLATE
        return [TEMPLATE if plain else template_of(cfg)]

    def planned_moves(self) -> int:
        return 1 if self.options.swings else super().planned_moves()

    def build_model(self) -> None:
        self.model = SvdCLIP(self.load_clip(), self.classnames, self.templates_of(self.cfg)[0], **self.encoder_options)
        self.finish_model()


add_config = declaring(ClipSvdOptions)
