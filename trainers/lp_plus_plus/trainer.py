"""LP++: a linear probe blended with text, class by class (Huang et al., CVPR 2024, arXiv 2404.02285).

Shapes: N pictures, V views, C classes, D features, K steps.
"""

import torch
from torch.nn import functional as F

from ..core.heads.search import Labelled, choose
from ..core.heads.trainer import HeadTrainer
from ..core.settings.configure import declaring
from ..core.training.trainer import register
from .model import LPPlusPlusCLIP, steps_of_lp
from .options import LPPlusPlusOptions


@register
class LPPlusPlus(HeadTrainer):
    """Takes STEPS full-batch steps on features; the step whose classifier is kept is chosen."""

    def build_model(self) -> None:
        backbone, steps = self.load_clip(), self.options.steps
        text_CD = F.normalize(self.text_weights(backbone), dim=-1)
        shots = self.labelled(backbone, self.dm.dataset.train_x)
        views_VND = F.normalize(self.views(backbone), dim=-1)
        bound = views_VND.shape[-1] ** -0.5  # what nn.Linear draws its bias within
        drawn_C = torch.empty(self.num_classes).uniform_(-bound, bound).to(self.device)

        def fit(kept_N: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
            labels_N = shots.labels_N[kept_N].repeat(len(views_VND))
            return list(steps_of_lp(views_VND[:, kept_N].flatten(0, 1), labels_N, text_CD, drawn_C, steps))

        def score(heads: list[tuple[torch.Tensor, torch.Tensor]], tested: Labelled) -> torch.Tensor:
            right = []
            for weight_CD, bias_C in heads:
                right.append(((tested.features_ND @ weight_CD.T + bias_C).argmax(1) == tested.labels_N).sum())
            return torch.stack(right[::-1])  # of equally good steps the last counts

        chosen = choose("step", range(steps, 0, -1), fit, score, shots, self.held_out(backbone), steps)
        everything = torch.ones_like(shots.labels_N, dtype=torch.bool)
        self.model = LPPlusPlusCLIP(backbone, *self.agreed(*fit(everything)[chosen - 1])).to(self.device)
        self.register_model("lp_plus_plus", self.model)


add_config = declaring(LPPlusPlusOptions)
