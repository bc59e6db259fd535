"""How far probabilities are to be believed: expected calibration error, and the temperature that mends it.

Shapes: N pictures, C classes.
"""

import numpy as np
import torch
from torch.nn import functional as F

BINS = 15


def calibration_error(logits_NC: torch.Tensor, labels_N: torch.Tensor, temperature: float = 1.0) -> float:
    """Expected calibration error in percent: the mean gap between confidence and accuracy over 15 bins of confidence of
    equal width, weighted by their pictures (Guo et al., ICML 2017, eq. 3)."""
    confidence_N, chosen_N = (logits_NC.double() / temperature).softmax(1).max(1)
    hit_N = (chosen_N == labels_N).double()
    bin_N = (confidence_N * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = [(hit_N[bin_N == b] - confidence_N[bin_N == b]).sum().abs() for b in range(BINS)]
    return 100.0 * float(sum(gaps)) / len(labels_N)


def fitted_temperature(logits_NC: torch.Tensor, labels_N: torch.Tensor) -> float:
    """The T at which softmax(logits / T) gives the labels the largest likelihood (Guo et al., section 4.2); 0.05 to 20."""
    from scipy.optimize import minimize_scalar  # slow to import

    logits_NC = logits_NC.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits_NC / np.exp(log_temperature), labels_N))

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))
