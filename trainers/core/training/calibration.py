"""How far probabilities are to be believed: expected calibration error, the temperature that mends it, and the
confidence below which an answer is better not given.

Shapes: N pictures, C classes.
"""

import math

import torch
from torch.nn import functional as F

from ..runs.results import TEMPERATURES

BINS = 15
KEPT = 0.95  # share of the right answers on validation pictures that a rejection threshold keeps


def calibration_error(logits_NC: torch.Tensor, labels_N: torch.Tensor, temperature: float = 1.0) -> float:
    """Expected calibration error in percent: the mean gap between confidence and accuracy over 15 bins of confidence of
    equal width, weighted by their pictures (Guo et al., ICML 2017, eq. 3)."""
    confidence_N, chosen_N = (logits_NC.double() / temperature).softmax(1).max(1)
    hit_N = (chosen_N == labels_N).double()
    bin_N = (confidence_N * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = [(hit_N[bin_N == b] - confidence_N[bin_N == b]).sum().abs() for b in range(BINS)]
    return 100.0 * float(sum(gaps)) / len(labels_N)


@torch.no_grad()
def fitted_temperature(logits_NC: torch.Tensor, labels_N: torch.Tensor) -> float:
    """The T at which softmax(logits / T) makes the labels likeliest (Guo et al., section 4.2), within TEMPERATURES.

    Its logarithm has a standard normal prior, which assumes that T is about 1. Without it, a handful of correctly
    classified pictures would drive T to 0. Hundreds of pictures outweigh the prior.
    """
    from scipy.optimize import minimize_scalar  # slow to import

    logits_NC = logits_NC.double()

    def loss(log_t: float) -> float:
        return float(F.cross_entropy(logits_NC / math.exp(log_t), labels_N, reduction="sum")) + log_t**2 / 2

    least, largest = TEMPERATURES
    found = minimize_scalar(
        loss, bounds=(math.log(least), math.log(largest)), method="bounded", options={"xatol": 1e-5}
    )
    return min(max(math.exp(float(found.x)), least), largest)


def rejection_threshold(logits_NC: torch.Tensor, labels_N: torch.Tensor, temperature: float = 1.0) -> float | None:
    """The confidence that KEPT of the rightly classified pictures reach, rounded down; None if none is right.

    It is the usual working point of open-set recognition, 95 % of the known pictures kept (Hendrycks and Gimpel, ICLR
    2017, whose score, the largest probability, it bounds).
    """
    confidence_N, chosen_N = (logits_NC.double() / temperature).softmax(1).max(1)
    right_M = confidence_N[chosen_N == labels_N].sort().values
    return math.floor(1e6 * float(right_M[int((1 - KEPT) * len(right_M))])) / 1e6 if len(right_M) else None
