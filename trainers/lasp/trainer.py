"""LASP: text-to-text optimisation for language-aware soft prompting (Bulat, Tzimiropoulos, CVPR 2023).

Shapes: B pictures, C training classes, A >= C classes of the text loss, G soft prompts, T templates, M context tokens,
W width of the text transformer, D features, H x W pixels.
"""

import torch
from yacs.config import CfgNode

from ..core.clip.losses import accuracy
from ..core.settings.configure import declaring
from ..core.settings.templates import from_template_file
from ..core.training.context_trainer import ContextTrainer
from ..core.training.trainer import Losses, register
from .model import LaspCLIP
from .options import LaspModelOptions, LaspOptions


@register
class LASP(ContextTrainer):
    """Trains LaspCLIP: L = L_cls + LASP_LOSS_WEIGHT L_text."""

    context = "prompt_learner.ctx"

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        return cfg.TRAINER.LASP.LASP_PROMPTS or from_template_file("lasp.yaml", "templates")

    def build_model(self) -> None:
        o = self.options
        templates = self.templates_of(self.cfg)
        # LASP's own word for classifying over the names of all classes, new ones too
        names = self.all_classnames if self.cfg.DATASET.INCLUDE_ALL_CLASSES else self.classnames
        scored = self.all_classnames if o.text_classes == "all" else names
        self.model = LaspCLIP(
            self.load_clip(), names, templates, scored, **o.keywords(LaspModelOptions), **self.encoder_options
        )
        self.print_context(self.model.prompt_learner.ctx)
        self.finish_model(slower=self.model.tuned, times=0.1)

    def drawn(self) -> tuple[torch.Tensor, ...]:
        return (self.model.seen_hard_features(),) if self.options.enable else ()

    def compute_loss(self, images: torch.Tensor, labels: torch.Tensor, *drawn: torch.Tensor) -> Losses:
        if not self.options.enable:
            return super().compute_loss(images, labels)
        parts = self.model.losses(images, labels, *drawn)
        loss = parts["cls"] + self.options.lasp_loss_weight * parts["text"]
        shown = {f"loss_{name}": parts[name] for name in ("cls", "text")}
        return loss, shown | {"acc": accuracy(parts["logits_BC"], labels)}

    def convert_state(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """LASP's own checkpoints hold the whole CLIP; only what was trained is taken."""
        learned_names = self.model.trainable()
        foreign = any(name.endswith("token_prefix") for name in state)
        return {k: v for k, v in state.items() if k in learned_names} if foreign else state

    def asked_classnames(self) -> list[str]:
        return list(self.all_classnames) if self.cfg.DATASET.INCLUDE_ALL_CLASSES else self.classnames

    def identity(self) -> dict:
        own = {"text_classes": self.options.text_classes}
        if self.cfg.DATASET.INCLUDE_ALL_CLASSES:
            own["classifies"] = self.asked_classnames()
        return super().identity() | own


add_config = declaring(LaspOptions)
