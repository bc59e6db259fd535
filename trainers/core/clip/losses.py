"""What is minimised beside the classification loss.

Shapes: B pictures, G groups, C classes, D features.
"""

import torch
from torch.nn import functional as F

from .precision import in_full_precision


@in_full_precision
def text_to_text_loss(
    soft_GCD: torch.Tensor, hard_GCD: torch.Tensor, scale: torch.Tensor | float, over: str = "hard"
) -> torch.Tensor:
    """L_text: contrastive classification between the soft text features and the hard ones of their group.

    over="hard": each soft feature finds its class among the hard ones, mean over g, c of
    -log softmax_c'( scale <w_gc, p_gc'> ) at c' = c  (MoCoOp's code; LASP's abstract and eq. 5).
    over="soft": each hard feature finds its class among the soft ones, the softmax over c of w_gc (LASP's code).
    soft_GCD may have one group where hard_GCD has many: LASP's single prompt against every template. Returns a scalar.
    """
    logits_GCC = scale * soft_GCD @ hard_GCD.transpose(-1, -2)
    if over == "soft":
        logits_GCC = logits_GCC.transpose(-1, -2)
    labels_C = torch.arange(logits_GCC.shape[1], device=logits_GCC.device)
    return F.cross_entropy(logits_GCC.flatten(0, 1), labels_C.repeat(len(logits_GCC)))


def with_noise(features: torch.Tensor, sigma: float, probability: float = 0.5) -> torch.Tensor:
    """LASP's noise: with `probability`, a fresh normal draw of `sigma` is added to a copy; otherwise `features` itself."""
    if sigma <= 0 or float(torch.rand(())) >= probability:
        return features
    return features + sigma * torch.randn_like(features)


def gate_target(similarity_BG: torch.Tensor, top_k: int, boost: float) -> torch.Tensor:
    """q = softmax over g ( s_g + boost [s_g is among the top_k largest] ); B x G."""
    chosen_BK = similarity_BG.topk(top_k, dim=-1).indices
    raised_BG = torch.zeros_like(similarity_BG).scatter_(1, chosen_BK, boost)
    return (similarity_BG + raised_BG).softmax(dim=-1)


def soft_cross_entropy(logits_BG: torch.Tensor, target_BG: torch.Tensor) -> torch.Tensor:
    """Cross-entropy against probabilities, mean over B; gradients also flow into the target."""
    return -(target_BG * logits_BG.log_softmax(dim=-1)).sum(dim=-1).mean()


def accuracy(logits_BC: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    """Percent of pictures whose largest logit is their label's."""
    return 100.0 * (logits_BC.argmax(-1) == labels_B).float().mean()


def divergence(teacher_BC: torch.Tensor, logits_BC: torch.Tensor) -> torch.Tensor:
    """sum_bc p0 (log p0 - log p) / (B C), of the probabilities that a teacher's logits and ours give; a scalar."""
    apart = F.kl_div(logits_BC.log_softmax(1), teacher_BC.log_softmax(1), reduction="sum", log_target=True)
    return apart / logits_BC.numel()
