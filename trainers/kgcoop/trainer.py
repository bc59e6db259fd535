"""KgCoOp: knowledge-guided context optimisation (Yao, Zhang, Xu, CVPR 2023).

Shapes: B pictures, C classes, H x W pixels.
"""

import torch
from yacs.config import CfgNode

from ..coop.options import CoOpModelOptions
from ..coop.trainer import CoOp
from ..core.clip.losses import accuracy
from ..core.settings.configure import declaring
from ..core.settings.templates import template_of
from ..core.training.trainer import register
from .model import KgCoOpCLIP
from .options import KgCoOpOptions

TEACHERS = {"DescribableTextures": "a photo of a {}, a type of texture."}  # of the others, zero-shot CLIP's template


@register
class KgCoOp(CoOp):
    """Trains KgCoOpCLIP: L = L_cls + W L_text, which is W / 2 times the mean squared distance to w0 (equation 5)."""

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        return [cfg.DATASET.TEMPLATE or TEACHERS.get(cfg.DATASET.NAME) or template_of(cfg)]

    def build_model(self) -> None:
        (template,), o = self.templates_of(self.cfg), self.options
        self.model = KgCoOpCLIP(
            self.load_clip(), self.classnames, template, **o.keywords(CoOpModelOptions), **self.encoder_options
        )
        self.print_context(self.model.ctx)
        self.finish_model()

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        parts = self.model.losses(images, labels)
        shown = {f"loss_{name}": parts[name] for name in ("cls", "text")}
        return parts["cls"] + self.options.w * parts["text"], shown | {"acc": accuracy(parts["logits_BC"], labels)}


add_config = declaring(KgCoOpOptions)  # for CoOp's own train.py
