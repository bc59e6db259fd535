"""MMRL++: parameter-efficient and interaction-aware representation learning (Guo, Gu, IJCV 2026)."""

from pathlib import Path
from typing import Any

import torch

from ..core.settings.configure import declaring
from ..core.training.trainer import register
from ..mmrl.trainer import MMRL
from .model import MmrlPlusPlusCLIP
from .options import MmrlPlusPlusModelOptions, MmrlPlusPlusOptions


@register
class MMRLpp(MMRL):
    """Trains MmrlPlusPlusCLIP with MMRL's loss."""

    CONSTANTS = Path(__file__).with_name("by_dataset.yaml")

    def known(self) -> dict[str, Any]:
        return {"beta": self.beta}

    def build_model(self) -> None:
        if not hasattr(self, "beta"):  # a checkpoint brings its own
            self.beta, self.reg_weight = self.constant("beta"), self.constant("reg_weight")
        (template,) = self.templates_of(self.cfg)
        o = self.options.keywords(MmrlPlusPlusModelOptions)
        self.model = MmrlPlusPlusCLIP(
            self.load_clip(),
            self.classnames,
            template,
            dim=self.options.dim,
            beta=self.beta,
            **o,
            **self.encoder_options,
        )
        print(
            f"Prompt \"{template}\", {self.beta:g} of each block's tokens its own, features held to CLIP's by "
            f"{self.reg_weight:g}"
        )
        self.finish_model()

    def adopt(self, identity: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        if identity.get("beta", self.beta) != self.beta:
            self.beta = float(identity["beta"])
            self.rebuild_model()
        self.choose_heads(identity)


add_config = declaring(MmrlPlusPlusOptions)
