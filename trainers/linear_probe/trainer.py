"""Linear probe: logistic regression on frozen image features (Radford et al., 2021, appendix A.3).

Shapes: N pictures of a set, B pictures, C classes, D features, H x W pixels.
"""

import warnings
from typing import Any

import numpy as np
import torch

from ..core.clip.backbones import Backbone
from ..core.ranks.collectives import this_rank
from ..core.settings.configure import declaring
from ..core.training.trainer import PromptTrainer, register
from .model import ProbedCLIP
from .options import LinearProbeOptions

STRENGTHS = [10.0**e for e in range(6, -7, -2)]  # C of scikit-learn, coarse grid; then halved eight times
NEVER = -1e9  # the bias of a class without training pictures
CLIPS_STRENGTH = 0.316  # in the README of CLIP's own repository


@register
class LinearProbe(PromptTrainer):
    """Fits the classifier while it is built; the strength of its regularisation is searched on the validation split."""

    def build_model(self) -> None:
        backbone = self.load_clip()
        train = self._features(backbone, self.dm.dataset.train_x)
        if self.dm.dataset.val:
            chosen = best_strength(train, self._features(backbone, self.dm.dataset.val), self.options.search)
        else:  # ImageNet: a quarter of each class's training pictures has to do
            held_out = held_out_quarter(train[1])
            kept = train[0][~held_out], train[1][~held_out]
            chosen = best_strength(kept, (train[0][held_out], train[1][held_out]), self.options.search)
        weight, bias = fit(train, *chosen)
        full = np.zeros((self.num_classes, weight.shape[1])), np.full(self.num_classes, NEVER)
        classes = np.unique(train[1])
        full[0][classes], full[1][classes] = weight, bias
        full = this_rank().broadcast(full)  # another machine may round, and so choose, otherwise
        self.model = ProbedCLIP(backbone, *(torch.from_numpy(a).float() for a in full)).to(self.device)
        self.register_model("linear_probe", self.model)

    def _features(self, backbone: Backbone, items: list) -> tuple[np.ndarray, np.ndarray]:
        return self.features_of(backbone, items).float().numpy(), np.array([item.label for item in items])


def held_out_quarter(labels_N: np.ndarray) -> np.ndarray:
    """Which pictures to choose the regularisation on: each class's last quarter, one at least, but never its only one."""
    held_out = np.zeros(len(labels_N), bool)
    for label in np.unique(labels_N):
        own = np.flatnonzero(labels_N == label)
        held_out[own[len(own) - max(1, len(own) // 4) :]] = len(own) > 1
    return held_out


Labelled = tuple[np.ndarray, np.ndarray]  # features (N x D) and labels (N)


def best_strength(train: Labelled, val: Labelled, search: str = "neighbours") -> tuple[float, Any]:
    """The C that does best on `val`, on a coarse grid, then by halving the step in log space; and the solver.

    Each fit starts where the last one ended, which takes less time. search "coop": as CoOp's lpclip/linear_probe.py has it,
    which starts each fit anew, halves an interval and takes its better end, also where what lay between was better.
    """
    from sklearn.exceptions import ConvergenceWarning  # slow to import
    from sklearn.linear_model import LogisticRegression

    solver = LogisticRegression(max_iter=1000, warm_start=search != "coop")
    tried: dict[float, float] = {}
    if not len(val[1]):
        print(
            f"One picture per class leaves none to choose the regularisation on: C = {CLIPS_STRENGTH}, as in CLIP's example"
        )
        return CLIPS_STRENGTH, solver

    def accuracy(strength: float) -> float:
        if strength not in tried:
            with warnings.catch_warnings():  # nearly unregularised fits may stop early: they are only candidates
                warnings.simplefilter("ignore", ConvergenceWarning)
                tried[strength] = float(solver.set_params(C=strength).fit(*train).score(*val))
        return tried[strength]

    for strength in reversed(STRENGTHS):  # from the most regularised on, each a good start for the next
        accuracy(strength)
    best = max(STRENGTHS, key=accuracy)
    step = 1.0  # in powers of ten
    if search == "coop":
        left, right = np.log10(best) - step, np.log10(best) + step
        for _ in range(8):
            grows = accuracy(10.0**left) < accuracy(10.0**right)
            best = 10.0 ** (right if grows else left)
            left, right = ((left + right) / 2, right) if grows else (left, (left + right) / 2)
    else:
        for _ in range(8):
            best = max((best * 10.0**-step, best, best * 10.0**step), key=accuracy)
            step /= 2
    print(f"Regularisation C = {best:.3g}, validation accuracy {100 * tried[best]:.1f}%")
    return best, solver


def fit(train: Labelled, strength: float, solver: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weights (classes x D) and biases of the logistic regression."""
    model = solver.set_params(C=strength).fit(*train)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # two classes share one row in scikit-learn
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


add_config = declaring(LinearProbeOptions)
