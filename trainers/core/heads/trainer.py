"""The base trainer of heads on frozen features: their pictures' features, and what their constants are chosen on.

Shapes: N pictures, V views, C classes, D features.
"""

from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from ..clip.backbones import Backbone
from ..clip.hard_features import group_means, hard_features
from ..clip.text_tower import TextEncoder
from ..clip.visual_tower import encode_pictures
from ..loading.loaders import Pictures
from ..ranks.collectives import this_rank
from ..settings.templates import from_template_file, template_of
from ..training.trainer import PromptTrainer
from .search import Labelled


class HeadTrainer(PromptTrainer):
    """A trainer of heads beside zero-shot CLIP, with the options of HeadOptions."""

    templates_called = "templates"

    @classmethod
    def templates_of(cls, cfg: CfgNode) -> list:
        """One template; on ImageNet CLIP's seven selected ones, as the authors of all of these heads have it."""
        if cfg.DATASET.NAME == "ImageNet" and not cfg.DATASET.TEMPLATE:
            return from_template_file("zeroshot.yaml", "selected")
        return [template_of(cfg)]

    def text_weights(self, backbone: Backbone) -> torch.Tensor:
        """Zero-shot CLIP's classifier, the logit scale times its text features; C x D."""
        encoder, templates = TextEncoder(backbone, *self.encoder_options.values()), self.templates_of(self.cfg)
        hard_TCD = hard_features(encoder, templates, self.classnames, backbone.vocabulary)
        return backbone.logit_scale.detach().exp() * group_means(hard_TCD, [templates])[0].float()

    def views(self, backbone: Backbone) -> torch.Tensor:
        """Features of the training pictures, augmented VIEWS times, or once as in testing; not normalised; V x N x D.

        Each view's augmentation is drawn from seed, view and picture alone.
        """
        if not self.options.views:
            return self.features_of(backbone, self.dm.dataset.train_x)[None].float().to(self.device)
        trained: Any = self.train_loader_x.dataset
        pictures = Pictures(self.cfg, self.dm.dataset.train_x, transform=trained.transform, is_train=True)
        pictures.draws_alone = True
        pictures.keep()
        found = []
        for view in range(self.options.views):
            pictures.epoch = view
            loader = DataLoader(
                pictures, self.cfg.DATALOADER.TEST.BATCH_SIZE, num_workers=self.test_loader.num_workers,
                worker_init_fn=self.test_loader.worker_init_fn, generator=torch.Generator(),
            )  # fmt: skip
            with torch.no_grad(), self.autocast():
                found += [encode_pictures(backbone, self.as_numbers(batch["img"], loader)) for batch in loader]
        return torch.cat(found).float().unflatten(0, (self.options.views, -1))

    def labelled(self, backbone: Backbone, items: list, where: str = "") -> Labelled:
        """Pictures as they are tested."""
        features_ND = self.features_of(backbone, items).float().to(self.device)
        labels_N = torch.tensor([item.label for item in items], device=self.device)
        return Labelled(F.normalize(features_ND, dim=-1), labels_N, where)

    def held_out(self, backbone: Backbone) -> Labelled | None:
        """What constants are chosen on, by SEARCH_ON; None: the shots have to do."""
        data, asked = self.dm.dataset, self.options.search_on
        if asked == "test":
            return self.labelled(backbone, data.test, "the test pictures themselves")
        if asked == "val" and data.val:
            return self.labelled(backbone, data.val, f"{len(data.val)} validation pictures")
        return None

    def agreed(self, *numbers: torch.Tensor) -> list[torch.Tensor]:
        """What rank 0 fitted and chose: another machine may round, and so choose, otherwise."""
        return [number.to(self.device) for number in this_rank().broadcast([number.cpu() for number in numbers])]
