"""TCP: textual-based class-aware prompt tuning (Yao, Zhang, Xu, CVPR 2024).

Shapes: B pictures, C classes, H x W pixels.
"""

from pathlib import Path

import torch
from yacs.config import CfgNode

from ..core.clip.losses import accuracy
from ..core.settings.configure import declaring
from ..core.settings.text_files import read_yaml
from ..core.training.trainer import PromptTrainer, register
from .model import TcpCLIP
from .options import TcpModelOptions, TcpOptions


@register
class TCP(PromptTrainer):
    """Trains TcpCLIP: L = L_cls + W L_text."""

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        """The prompt and the teacher's template."""
        known = read_yaml(Path(__file__).with_name("templates.yaml"))
        return known.get(cfg.DATASET.NAME, known["other"])

    def identity(self) -> dict:
        return super().identity() | {"templates": self.templates_of(self.cfg)}

    def build_model(self) -> None:
        template, teacher = self.templates_of(self.cfg)
        o = self.options.keywords(TcpModelOptions)
        self.model = TcpCLIP(self.load_clip(), self.classnames, template, teacher, **o, **self.encoder_options)
        print(f'Prompt "{template}", class tokens from "{teacher}"')
        self.finish_model()

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        parts = self.model.losses(images, labels)
        shown = {f"loss_{name}": parts[name] for name in ("cls", "text")}
        return parts["cls"] + self.options.w * parts["text"], shown | {"acc": accuracy(parts["logits_BC"], labels)}


add_config = declaring(TcpOptions)
