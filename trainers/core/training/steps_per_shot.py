"""Training for so many steps for each shot, whatever the number of classes, on one template for all data, as CLIP-LoRA and
2SFS do."""

import math

from yacs.config import CfgNode

from .trainer import PromptTrainer

TEMPLATE = "a photo of a {}."


class StepsPerShot(PromptTrainer):
    """A trainer whose options have steps_per_shot: where that is not 0, the epochs are as many as make so many steps."""

    templates_called = "templates"

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        return [cfg.DATASET.TEMPLATE or TEMPLATE]

    def build_data_loader(self) -> None:
        super().build_data_loader()
        if self.options.steps_per_shot:
            all_shots = math.ceil(len(self.dm.dataset.train_x) / self.num_classes)
            shots = self.cfg.DATASET.NUM_SHOTS if self.cfg.DATASET.NUM_SHOTS > 0 else all_shots
            steps = self.options.steps_per_shot * shots
            self.plan_epochs(math.ceil(steps / len(self.train_loader_x)))
            print(f"{steps:,} steps or a few more: {self.max_epoch} epochs")
