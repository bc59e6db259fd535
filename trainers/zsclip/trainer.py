"""Zero-shot CLIP (Radford et al., 2021): one hand-crafted template per dataset, or the mean of several, or a mixture of
groups of them.

Shapes: B pictures, C classes, T templates, D features, H x W pixels.
"""

from yacs.config import CfgNode

from ..core.clip.adapted import AdaptedCLIP
from ..core.settings.configure import declaring
from ..core.settings.templates import from_template_file, template_groups, template_of
from ..core.training.trainer import PromptTrainer, register
from .model import HardMixtureCLIP, HardPromptCLIP
from .options import HardMixtureOptions


@register
class ZeroshotCLIP(PromptTrainer):
    """One template per dataset (configs/templates/zeroshot.yaml); works on base and new classes too."""

    templates_called = "templates"

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        return [template_of(cfg)]

    def build_model(self) -> None:
        templates = self.templates_of(self.cfg)
        print(f"Prompts: {templates}")
        self.model = self.model_of(templates)
        self.put_head()
        self.model.to(self.device)
        self.register_model("zero_shot", self.model)

    def model_of(self, templates: list) -> AdaptedCLIP:
        return HardPromptCLIP(self.load_clip(), self.classnames, templates, **self.encoder_options)


@register
class ZeroshotHead(ZeroshotCLIP):
    """Zero-shot CLIP with a head on image features (core/heads/text_means.py), and nothing learned in steps."""


@register
class ZeroshotCLIP2(ZeroshotCLIP):
    """Seven templates selected on ImageNet, and the dataset's own."""

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        own = super().templates_of(cfg)
        are_enough = cfg.DATASET.NAME == "ImageNet" and not cfg.DATASET.TEMPLATE
        return from_template_file("zeroshot.yaml", "selected") + ([] if are_enough else own)


@register
class HardMixture(ZeroshotCLIP):
    """The dataset's template groups (configs/templates/template_groups.yaml), which MoCoOp starts from, and nothing
    learned: how much of a result is the choice of templates."""

    templates_called = "template_groups"

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        return template_groups(cfg)

    def model_of(self, templates: list) -> AdaptedCLIP:
        return HardMixtureCLIP(self.load_clip(), self.classnames, templates, self.options.read, **self.encoder_options)


add_config = declaring(HardMixtureOptions)
