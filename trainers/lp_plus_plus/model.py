"""LP++: a linear probe blended with text, class by class (Huang et al., "LP++: A Surprisingly Strong Linear Probe for
Few-Shot CLIP", CVPR 2024, arXiv 2404.02285).

Shapes: N pictures, C classes, D features.
"""

from collections.abc import Iterator

import torch
from torch.nn import functional as F

from ..core.heads.model import LinearHeadCLIP


class LPPlusPlusCLIP(LinearHeadCLIP):
    """<f, v_c> + b_c + alpha_c <f, w_c>, as one linear classifier."""

    called = "LP++"


def steps_of_lp(
    features_ND: torch.Tensor, labels_N: torch.Tensor, text_CD: torch.Tensor, bias_C: torch.Tensor, steps: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The classifier behind each full-batch step of gradient descent: v + alpha w, C x D, and b, C.

    features_ND and text_CD (w) are normalised; bias_C: what b starts from. v_c starts from the sum of class c's features
    (the authors' code; the paper's mean is another scale), alpha from 250 times the mean cosine of a class's pictures with
    its text. v and b move with momentum 0.9 at the rate 4 N / (largest eigenvalue of F^T F). alpha moves each tenth step,
    at N / (4 max_c sum_i <f_i, w_c>^2), by the sum of all gradients so far, as in the authors' code, which never sets them
    to zero.
    """
    N, C = len(features_ND), len(text_CD)
    text_NC = features_ND @ text_CD.T
    present = labels_N.unique()
    own_N = text_NC.gather(1, labels_N[:, None]).flatten()
    mean_of_own = torch.stack([own_N[labels_N == label].mean() for label in present]).mean()
    weight_CD = torch.zeros_like(text_CD).index_add_(0, labels_N, features_ND).requires_grad_()
    bias_C = bias_C.clone().requires_grad_()
    alpha_C = (250 * mean_of_own * features_ND.new_ones(C)).requires_grad_()
    rate = float(4 * N / torch.linalg.eigvalsh(features_ND.T @ features_ND)[-1])
    rate_of_alpha = N / (4 * text_NC.square().sum(0).max())
    optimiser = torch.optim.SGD([weight_CD, bias_C], rate, momentum=0.9)
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        F.cross_entropy(features_ND @ weight_CD.T + bias_C + alpha_C * text_NC, labels_N).backward()
        optimiser.step()
        with torch.no_grad():
            if step % 10 == 0:
                alpha_C.sub_(rate_of_alpha * torch.as_tensor(alpha_C.grad))
            yield weight_CD + alpha_C[:, None] * text_CD, bias_C.clone()
