"""ProGrad: prompt-aligned gradients (Zhu, Niu, Han, Wu, Zhang, ICCV 2023).

Shapes: B pictures, C classes, H x W pixels.
"""

import torch
from yacs.config import CfgNode

from ..core.clip.losses import accuracy
from ..core.settings.configure import declaring
from ..core.settings.templates import template_of
from ..core.training.trainer import PromptTrainer, register
from .model import ProGradCLIP, project, start_words
from .options import ProGradOptions

TEMPLATES = {  # of the others, zero-shot CLIP's; a class name stands last, so that words can start the context
    "OxfordPets": "a type of pet, a photo of a {}.", "OxfordFlowers": "a type of flower, a photo of a {}.",
    "FGVCAircraft": "a type of aircraft, a photo of a {}.", "DescribableTextures": "a texture of {}.",
    "Food101": "a type of food, a photo of {}.",
}  # fmt: skip


@register
class ProGrad(PromptTrainer):
    """Trains ProGradCLIP by the gradient of cross-entropy, less PROJECTION times what of it goes against zero-shot CLIP."""

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        return [cfg.DATASET.TEMPLATE or TEMPLATES.get(cfg.DATASET.NAME) or template_of(cfg)]

    def build_model(self) -> None:
        if not hasattr(self, "template"):  # a checkpoint brings its own
            (self.template,) = self.templates_of(self.cfg)
        o = self.options
        aligned = o.from_template
        try:
            start_words(self.template, o.n_ctx)
        except ValueError:  # in a test a checkpoint brings its own words; a training is refused below
            aligned = False
        options = o.keywords(ProGradOptions) | {"from_template": aligned}
        self.model = ProGradCLIP(self.load_clip(), self.classnames, self.template, **options, **self.encoder_options)
        start = f'zeros, then "{self.template}"' if aligned else "random"
        print(f"Context: {o.n_ctx} learned vectors, starting {start}")
        self.finish_model()

    def before_train(self) -> None:
        if self.options.from_template:
            start_words(self.template, self.options.n_ctx)
        super().before_train()

    def compute_loss(  # type: ignore[override]
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]:
        parts = self.model.losses(images, labels)
        return (parts["cls"], parts["guide"]), {
            "loss_guide": parts["guide"],
            "acc": accuracy(parts["logits_BC"], labels),
        }

    def combine(self, grads: list[torch.Tensor], guides: list[torch.Tensor]) -> None:
        for grad, guide in zip(grads, guides, strict=True):
            grad.copy_(project(grad, guide, self.options.projection))

    def identity(self) -> dict:
        return super().identity() | {"template": self.template}

    def adopt(self, identity: dict, tensors: dict[str, torch.Tensor]) -> None:
        """A checkpoint's context goes on with the words of its own template, also on another dataset."""
        template = identity.get("template", self.template)
        if template != self.template:
            self.template = template
            self.rebuild_model()


add_config = declaring(ProGradOptions)
