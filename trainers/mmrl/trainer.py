"""MMRL: multi-modal representation learning (Guo, Gu, CVPR 2025).

Shapes: B pictures, C classes, H x W pixels.
"""

from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from ..core.clip.losses import accuracy
from ..core.settings.configure import declaring
from ..core.settings.templates import template_of
from ..core.settings.text_files import of_dataset
from ..core.training.trainer import PromptTrainer, register
from .model import MmrlCLIP, answers_with_both
from .options import MmrlModelOptions, MmrlOptions


@register
class MMRL(PromptTrainer):
    """Trains MmrlCLIP: L = alpha L_class + (1 - alpha) L_rep + REG_WEIGHT (L_image + L_text)."""

    CONSTANTS = Path(__file__).with_name("by_dataset.yaml")
    templates_called = "templates"

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        return [template_of(cfg)]

    def constant(self, name: str) -> Any:
        """An option, or the authors' value for the dataset."""
        given = getattr(self.options, name)
        return of_dataset(self.CONSTANTS, self.cfg.DATASET.NAME)[name] if given is None else given

    def known(self) -> dict[str, Any]:
        """What the model is built from besides its options."""
        return {"dim": self.dim}

    def identity(self) -> dict:
        return super().identity() | self.known()

    def build_model(self) -> None:
        if not hasattr(self, "dim"):  # a checkpoint brings its own
            self.dim, self.reg_weight = self.constant("dim"), self.constant("reg_weight")
        (template,) = self.templates_of(self.cfg)
        o = self.options.keywords(MmrlModelOptions)
        self.model = MmrlCLIP(self.load_clip(), self.classnames, template, dim=self.dim, **o, **self.encoder_options)
        print(f'Prompt "{template}", {self.dim}-dimensional tokens, features held to CLIP\'s by {self.reg_weight:g}')
        self.finish_model()

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        parts, alpha = self.model.losses(images, labels), self.options.alpha
        loss = alpha * parts["class"] + (1 - alpha) * parts["rep"]
        shown = {f"loss_{name}": parts[name] for name in ("class", "rep", "image", "text")}
        held = self.reg_weight * (parts["image"] + parts["text"])
        return loss + held, shown | {"acc": accuracy(parts["logits_BC"], labels)}

    def adopt(self, identity: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        if identity.get("dim", self.dim) != self.dim:
            self.dim = int(identity["dim"])
            self.rebuild_model()
        self.choose_heads(identity)

    def choose_heads(self, identity: dict[str, Any]) -> None:
        """Which heads answer for the classes asked, of a checkpoint of that identity."""
        trained, here = identity.get("classnames", self.classnames), self.cfg.DATASET.NAME
        if identity.get("dataset", here) != here:  # ImageNetV2 has ImageNet's names, and is another data set
            trained = []
        self.model.both_heads = answers_with_both(self.options.heads, trained, self.classnames)
        answers = "Both heads answer" if self.model.both_heads else "The class token's head alone answers"
        print(f"{answers} (HEADS {self.options.heads})")


add_config = declaring(MmrlOptions)
