"""GDA: Gaussian discriminant analysis beside zero-shot CLIP (Wang et al., ICLR 2024, arXiv 2402.04087).

Shapes: N pictures, V views, C classes, D features, K candidates.
"""

import torch
from torch.nn import functional as F

from ..core.heads.search import Labelled, choose
from ..core.heads.trainer import HeadTrainer
from ..core.settings.configure import declaring
from ..core.training.trainer import register
from .model import GdaCLIP, gaussian_classifier
from .options import GdaOptions

ALPHAS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
USUAL_ALPHA = 0.1  # what the authors' search begins with


@register
class GDA(HeadTrainer):
    """Fits the Gaussians to all views of the training pictures; alpha is searched."""

    def build_model(self) -> None:
        backbone = self.load_clip()
        zero_shot_CD = self.text_weights(backbone)
        shots = self.labelled(backbone, self.dm.dataset.train_x)
        views_VND = F.normalize(self.views(backbone), dim=-1)

        def fit(kept_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            labels_N = shots.labels_N[kept_N].repeat(len(views_VND))
            return gaussian_classifier(views_VND[:, kept_N].flatten(0, 1), labels_N, self.num_classes)

        def score(head: tuple[torch.Tensor, torch.Tensor], tested: Labelled) -> torch.Tensor:
            weight_CD, bias_C = head
            own_NC = tested.features_ND @ weight_CD.T + bias_C
            zero_shot_NC = tested.features_ND @ zero_shot_CD.T
            right = [((zero_shot_NC + alpha * own_NC).argmax(1) == tested.labels_N).sum() for alpha in ALPHAS]
            return torch.stack(right)

        alpha = choose("alpha =", ALPHAS, fit, score, shots, self.held_out(backbone), USUAL_ALPHA)
        weight_CD, bias_C = fit(torch.ones_like(shots.labels_N, dtype=torch.bool))
        fitted = self.agreed(zero_shot_CD + alpha * weight_CD, alpha * bias_C)
        self.model = GdaCLIP(backbone, *fitted).to(self.device)
        self.register_model("gda", self.model)


add_config = declaring(GdaOptions)
