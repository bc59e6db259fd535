"""PLOT++: several prompts for each class and picture, matched by optimal transport (Chen et al., ICLR 2023)."""

from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from ..core.settings.configure import declaring
from ..core.settings.text_files import read_yaml
from ..core.training.trainer import PromptTrainer, register
from .model import PlotCLIP
from .options import PlotModelOptions, PlotOptions


@register
class PLOTPP(PromptTrainer):
    """Trains PlotCLIP with cross-entropy: its visual prompts first, then all, each stage with a schedule of its own."""

    phrases: list[str]
    may_record = False  # the transport asks each round how far it is

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        known = read_yaml(Path(__file__).with_name("phrases.yaml"))
        return known.get(cfg.DATASET.NAME, known["other"])

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"phrases": self.phrases}

    def adopt(self, identity: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        if identity.get("phrases", self.phrases) != self.phrases:  # of other datasets
            self.phrases = [str(phrase) for phrase in identity["phrases"]]
            self.rebuild_model()

    def build_model(self) -> None:
        if not hasattr(self, "phrases"):
            self.phrases = self.templates_of(self.cfg)
        o = self.options.keywords(PlotModelOptions)
        self.model = PlotCLIP(self.load_clip(), self.classnames, self.phrases, **o, **self.encoder_options)
        self.first_epochs = round(self.options.first_stage * self.cfg.OPTIM.MAX_EPOCH)
        print(f"Text prompts from {self.phrases}; visual prompts alone for {self.first_epochs} epochs")
        self.finish_model(restart=self.first_epochs)

    def run_epoch(self) -> None:
        if self.epoch >= self.first_epochs and not self.model.in_second_stage:
            self.model.begin_second_stage()
            self.optim.state.clear()  # the second stage is a training of its own
        super().run_epoch()


add_config = declaring(PlotOptions)
