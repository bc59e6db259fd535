"""A head on image features whose class means are predicted from text, so that it also serves classes without pictures.

Shapes: N pictures, S classes with pictures, C classes asked, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from .search import parts_of

RIDGE = 0.3  # lambda: how little text says of a seen class's mean
OWN = 0.1  # tau: what of a seen class's mean is its own, beside what text says
UNSEEN_RIDGE = 1.0  # lambda (tau + 1 / n) for classes without pictures
SHRINKAGE = 0.3  # of the covariance towards a multiple of the identity, in dimensions
# How much the head counts beside the cosines, both times the logit scale: tried on the shots, or with one of each class.
WEIGHTS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 1.5e-2)
ONE_SHOT_WEIGHT = 1e-3
AT_A_TIME = 65_536  # pictures, whose copies and logits are made together
TINY = 1e-6  # squared length: pictures that are all copies have a variance, too


@dataclass(frozen=True)
class Statistics:
    """What a head keeps of the training pictures' features. mean_SD: of each class; count_S: its pictures; scatter_DD: the
    sum of outer products about the classes' means."""

    mean_SD: torch.Tensor
    count_S: torch.Tensor
    scatter_DD: torch.Tensor


def statistics(features_ND: torch.Tensor, labels_N: torch.Tensor, classes: int) -> Statistics:
    """Of normalised features."""
    count_S = torch.bincount(labels_N, minlength=classes).to(features_ND.dtype)
    sum_SD = features_ND.new_zeros(classes, features_ND.shape[1]).index_add_(0, labels_N, features_ND)
    mean_SD = sum_SD / count_S.clamp(min=1)[:, None]
    scatter_DD = features_ND.new_zeros(2 * features_ND.shape[1:])
    for some_ND, labels in zip(features_ND.split(AT_A_TIME), labels_N.split(AT_A_TIME), strict=True):
        centred_ND = some_ND - mean_SD[labels]
        scatter_DD += centred_ND.T @ centred_ND
    return Statistics(mean_SD, count_S, scatter_DD)


def precision(known: Statistics) -> torch.Tensor:
    """S'^-1 of S' = (nu S + 0.3 tr(S) I) / (nu + 0.3 D), with nu = N - S degrees of freedom of the pooled covariance S;
    D x D. Where each class has one picture, S is taken as a multiple of the identity with the variance of the means."""
    D = known.scatter_DD.shape[0]
    present = known.count_S > 0
    eye_DD = torch.eye(D, dtype=known.scatter_DD.dtype, device=known.scatter_DD.device)
    nu = float(known.count_S.sum()) - int(present.sum())
    if nu <= 0:
        mean_SD = known.mean_SD[present]
        return eye_DD * D / (mean_SD - mean_SD.mean(0)).square().sum(1).mean().clamp(min=TINY)
    trace = (known.scatter_DD.trace() / nu).clamp(min=TINY)
    return torch.linalg.inv((known.scatter_DD + SHRINKAGE * trace * eye_DD) / (nu + SHRINKAGE * D))


def class_means(
    known: Statistics, text_SD: torch.Tensor, text_CD: torch.Tensor, seen_C: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """mu_c of the asked classes, C x D, and m, the mean of the seen classes' means, D.

    text_SD, text_CD: normalised text features of the seen and of the asked classes; seen_C: which of the seen classes an
    asked one is, or -1. With a = t less the mean over all names, and K = a a^T / lambda, a Gaussian process gives a seen
    class mu_c = m + (K_cS + tau [c]) (K_SS + diag(tau + 1 / n))^-1 (x - m), and an unseen one the same with tau = 0 and
    lambda (tau + 1 / n) = UNSEEN_RIDGE.
    """
    present = known.count_S > 0
    names_D = torch.cat([text_SD, text_CD[seen_C < 0]]).mean(0)
    a_SD, a_CD = text_SD[present] - names_D, text_CD - names_D
    mean_SD = known.mean_SD[present]
    m = mean_SD.mean(0)
    eye_SS = torch.eye(len(a_SD), dtype=a_SD.dtype, device=a_SD.device)
    noise_S = OWN + 1 / known.count_S[present]
    own_CS = (seen_C[:, None] == present.nonzero().flatten()[None]).to(a_SD.dtype)
    of_seen = (a_CD @ a_SD.T / RIDGE + OWN * own_CS) @ torch.linalg.solve(
        a_SD @ a_SD.T / RIDGE + torch.diag(noise_S), mean_SD - m
    )
    of_unseen = a_CD @ a_SD.T @ torch.linalg.solve(a_SD @ a_SD.T + UNSEEN_RIDGE * eye_SS, mean_SD - m)
    is_seen_C = own_CS.any(1)
    return m + torch.where(is_seen_C[:, None], of_seen, of_unseen), m


def linear_classifier(
    mean_CD: torch.Tensor, m: torch.Tensor, precision_DD: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """g_c(f) = (f - m)^T S'^-1 (mu_c - m) - 1/2 (mu_c - m)^T S'^-1 (mu_c - m) as <f, V_c> + b_c; C x D and C.

    That is Gaussian discriminant analysis with equal priors, against a class whose mean is m.
    """
    weight_CD = (mean_CD - m) @ precision_DD
    return weight_CD, -(weight_CD * (mean_CD + m)).sum(1) / 2


def check_fitted(tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises ValueError for those of a checkpoint of an earlier epoch than the last, behind which the head is fitted."""
    if not tensors["head.count_S"].any():
        raise ValueError(
            "this epoch's model has no head yet: use the last epoch's, or MODEL.HEAD.NAME none with train.py"
        )


class TextMeansHead(nn.Module):
    """Adds scale weight g_c(f) to the logits of the asked classes, with what it keeps of the seen classes' pictures.

    text_SD, text_CD: normalised text features of the seen and of the asked classes, without gradient; seen_C: which of the
    seen classes an asked one is, or -1. Before it is fitted it adds nothing.
    """

    mean_SD: torch.Tensor
    count_S: torch.Tensor
    scatter_DD: torch.Tensor
    weight: torch.Tensor
    text_SD: torch.Tensor
    text_CD: torch.Tensor
    seen_C: torch.Tensor

    def __init__(self, text_SD: torch.Tensor, text_CD: torch.Tensor, seen_C: torch.Tensor) -> None:
        super().__init__()
        S, D = text_SD.shape
        for name, shape in {"mean_SD": (S, D), "count_S": (S,), "scatter_DD": (D, D), "weight": ()}.items():
            self.register_buffer(name, text_SD.new_zeros(shape))
        for name, tensor in {"text_SD": text_SD, "text_CD": text_CD, "seen_C": seen_C}.items():
            self.register_buffer(name, tensor, persistent=False)

    @property
    def fitted(self) -> bool:
        return bool(self.count_S.any())

    def classifier(self, scale: torch.Tensor, of_seen: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """What is added to the logits, as <f, V_c> + b_c; C x D and C. scale: the logit scale; of_seen: of the seen
        classes instead of the asked ones."""
        known = Statistics(self.mean_SD, self.count_S, self.scatter_DD)
        places_S = torch.arange(len(self.text_SD), device=self.seen_C.device)
        asked = (self.text_SD, places_S) if of_seen else (self.text_CD, self.seen_C)
        with torch.autocast(self.text_SD.device.type, enabled=False):  # half precision inverts nothing
            mean_CD, m = class_means(known, self.text_SD, *asked)
            weight_CD, bias_C = linear_classifier(mean_CD, m, precision(known))
            return scale * self.weight * weight_CD, scale * self.weight * bias_C

    def fit(self, features_ND: torch.Tensor, labels_N: torch.Tensor, scale: torch.Tensor) -> tuple[float, int] | None:
        """Takes up the training pictures, of the seen classes in their order, and chooses the weight: the first of the best
        by cross-validation, in up to four parts of the shots. Returns the share that was right and of how many.

        features_ND: normalised. The weight is chosen beside the seen classes' text features, not beside what was trained
        on these very pictures, which would seem to need no head. With one picture per class nothing can be tried; the
        weight is then ONE_SHOT_WEIGHT, and None is returned.
        """
        parts = parts_of(labels_N)
        right_K = torch.zeros(len(WEIGHTS))
        for held_N in parts:
            self._take(features_ND[~held_N], labels_N[~held_N], 1.0)
            classifier = self.classifier(scale, of_seen=True)
            for some_ND, labels, held in zip(
                *(t.split(AT_A_TIME) for t in (features_ND, labels_N, held_N)), strict=True
            ):
                logits_NS = (scale * some_ND @ self.text_SD.T)[held]
                added_NS = nn.functional.linear(some_ND[held], *classifier)
                for k, weight in enumerate(WEIGHTS):
                    right_K[k] += ((logits_NS + weight * added_NS).argmax(1) == labels[held]).sum().cpu()
        self._take(features_ND, labels_N, WEIGHTS[int(right_K.argmax())] if parts else ONE_SHOT_WEIGHT)
        count = sum(int(held_N.sum()) for held_N in parts)
        return (float(right_K.max()) / count, count) if parts else None

    def _take(self, features_ND: torch.Tensor, labels_N: torch.Tensor, weight: float) -> None:
        known = statistics(features_ND, labels_N, len(self.text_SD))
        self.mean_SD.copy_(known.mean_SD)
        self.count_S.copy_(known.count_S)
        self.scatter_DD.copy_(known.scatter_DD)
        self.weight.fill_(weight)
