"""GDA: Gaussian discriminant analysis beside zero-shot CLIP (Wang et al., "A Hard-to-Beat Baseline for Training-free
CLIP-based Adaptation", ICLR 2024, arXiv 2402.04087).

Shapes: N pictures (all views of them), C classes, D features.
"""

import torch

from ..core.heads.model import LinearHeadCLIP


class GdaCLIP(LinearHeadCLIP):
    """scale <f, w_c> + alpha (<f, W_c> + b_c), as one linear classifier."""

    called = "GDA"


def gaussian_classifier(
    features_ND: torch.Tensor, labels_N: torch.Tensor, classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """W = mu S^-1 (C x D) and b = log 1/C - mu S^-1 mu / 2 (C), equations 4 and 7, with the class means mu and the inverse
    covariance S^-1 = D pinv((N - 1) S + tr(S) I) of all pictures about their class's mean (Kubokawa and Srivastava, 2008).

    A class without pictures gets the weight 0 and the lowest b. The covariance is inverted in float64.
    """
    N, D = features_ND.shape
    count_C = torch.bincount(labels_N, minlength=classes).clamp(min=1)
    mean_CD = features_ND.new_zeros(classes, D).index_add_(0, labels_N, features_ND) / count_C[:, None]
    centred_ND = features_ND - mean_CD[labels_N]
    covariance_DD = centred_ND.T.cov().double()
    eye_DD = torch.eye(D, dtype=torch.float64, device=features_ND.device)
    inverse_DD = D * torch.linalg.pinv((N - 1) * covariance_DD + covariance_DD.trace() * eye_DD)
    weight_CD = mean_CD.double() @ inverse_DD
    bias_C = -torch.tensor(classes).double().log() - (weight_CD * mean_CD).sum(1) / 2
    has_none_C = torch.bincount(labels_N, minlength=classes) == 0
    bias_C[has_none_C] = bias_C.min()
    return weight_CD.to(features_ND.dtype), bias_C.to(features_ND.dtype)
