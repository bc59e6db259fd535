"""The router's choice and the mixture of experts it makes.

Shapes: B pictures, G experts, K chosen experts, C classes, D features.
"""

import torch

from .precision import in_full_precision


def mixture_weights(router_BG: torch.Tensor, top_k: int) -> torch.Tensor:
    """pi: softmax over the top_k largest router logits of each picture, zero elsewhere; B x G (MoCoOp eq. 3)."""
    chosen_BK, experts_BK = router_BG.topk(top_k, dim=-1)
    return torch.zeros_like(router_BG).scatter(1, experts_BK, chosen_BK.softmax(dim=-1).to(router_BG.dtype))


@in_full_precision
def mixed_logits(
    image_BD: torch.Tensor, text_GCD: torch.Tensor, weights_BG: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """scale * sum_g pi_g <f, w_gc>; B x C. Similarities are mixed, not features, so no B x K x C x D is ever built."""
    similarity_GBC = image_BD @ text_GCD.transpose(-1, -2)
    return scale * torch.einsum("bg,gbc->bc", weights_BG.to(similarity_GBC.dtype), similarity_GBC)
