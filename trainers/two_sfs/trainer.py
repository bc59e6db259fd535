"""2SFS: LayerNorms of both towers first, then a classifier that starts from the text (Farina et al., CVPR 2025)."""

from typing import Any

import torch

from ..core.settings.configure import declaring
from ..core.training.steps_per_shot import StepsPerShot
from ..core.training.trainer import register
from .model import TwoStageCLIP
from .options import TwoSfsOptions


@register
class TwoSFS(StepsPerShot):
    """Trains TwoStageCLIP with cross-entropy, in two stages, each with a cosine of its own."""

    seen: list[str] | None = None  # the classes of training, where a checkpoint says others than are asked

    def build_model(self) -> None:
        (template,) = self.templates_of(self.cfg)
        self.model = TwoStageCLIP(self.load_clip(), self.classnames, template, self.seen, **self.encoder_options)
        steps = self.cfg.OPTIM.MAX_EPOCH * len(self.train_loader_x)
        self.first_steps = max(1, int(self.options.first_stage * steps))
        print(f"LayerNorms for {self.first_steps:,} of {steps:,} steps, then the classifier")
        self.finish_model(restart=self.first_steps)

    def adopt(self, identity: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        if identity.get("classnames", self.classnames) != self.classnames:
            self.seen = [str(name) for name in identity["classnames"]]
            self.rebuild_model()

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        if self.epoch * self.num_batches + self.batch_idx == self.first_steps and not self.model.in_second_stage:
            with self.autocast():  # in which frozen weights may be stored
                self.model.begin_second_stage()
            self.record_anew()
        return super().forward_backward(batch)


add_config = declaring(TwoSfsOptions)
