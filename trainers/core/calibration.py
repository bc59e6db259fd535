"""How far probabilities are to be believed: expected calibration error, and the temperature that mends it.

Shapes: N pictures, C classes.
"""

import math

import torch
from torch.nn import functional as F

BINS = 15
RANGE = (math.log(0.05), math.log(20.0))  # of the temperature's logarithm


def calibration_error(logits_NC: torch.Tensor, labels_N: torch.Tensor, temperature: float = 1.0) -> float:
    """Expected calibration error in percent: the mean gap between confidence and accuracy over 15 bins of confidence of
    equal width, weighted by their pictures (Guo et al., ICML 2017, eq. 3)."""
    confidence_N, chosen_N = (logits_NC.double() / temperature).softmax(1).max(1)
    hit_N = (chosen_N == labels_N).double()
    bin_N = (confidence_N * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = [(hit_N[bin_N == b] - confidence_N[bin_N == b]).sum().abs() for b in range(BINS)]
    return 100.0 * float(sum(gaps)) / len(labels_N)


@torch.enable_grad()
def fitted_temperature(logits_NC: torch.Tensor, labels_N: torch.Tensor) -> float:
    """The T at which softmax(logits / T) gives the labels the largest likelihood (Guo et al., section 4.2); 0.05 to 20."""
    logits_NC = logits_NC.detach().double()
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        # a split that is told apart without a fault is fitted best by T = 0: no further than the range
        found = F.cross_entropy(logits_NC / log_temperature.clamp(*RANGE).exp(), labels_N)
        found.backward()
        return found

    optimiser.step(loss)
    return float(log_temperature.detach().clamp(*RANGE).exp())
