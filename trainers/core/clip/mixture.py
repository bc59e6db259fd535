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


def chosen_experts(weights_BG: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The top_k experts of each picture, one after the other as pictures of their own, N = B x top_k: their numbers, N, and
    their weights in their own columns, zero elsewhere, N x G."""
    chosen_BK, experts_BK = weights_BG.topk(top_k, dim=-1)
    experts_N = experts_BK.flatten()
    weights_NG = weights_BG.new_zeros(len(experts_N), weights_BG.shape[1])
    return experts_N, weights_NG.scatter(1, experts_N[:, None], chosen_BK.reshape(-1, 1))
