"""Attention whose queries, keys and values have low-rank additions.

PEFT's LoRA for nn.MultiheadAttention, and torch's parametrize, add to the weights, so that neither can drop the addition's
inputs at random, as CLIP-LoRA does. Here the inputs take a second way beside the weights, which are left as they are.

Shapes: L positions, B pictures or prompts, W width, H heads, E width of a head, R rank.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

MATRICES = ("q", "k", "v")


class LoraAttention(nn.MultiheadAttention):
    """W x + alpha / sqrt(R) B A drop(x), for those of q, k and v that have an A (R x W, as nn.Linear begins) and a B
    (W x R, zero); self-attention with torch's own layout and masks. Each has a dropout mask of its own."""

    lora_scale: float
    lora_dropout: float

    @classmethod
    def put_into(
        cls, attention: nn.MultiheadAttention, rank: int, alpha: float, dropout: float, matrices: Sequence[str]
    ) -> None:
        """Makes a plain attention one of these, in place; its tensors keep their names. What is one already keeps its
        additions. Raises ValueError where these have another shape."""
        W = attention.embed_dim
        if isinstance(attention, cls):
            shapes = {name: tuple(p.shape) for name, p in attention.named_parameters() if name.startswith("lora_A")}
            if shapes != {f"lora_A_{name}": (rank, W) for name in matrices}:
                raise ValueError("this backbone has low-rank additions of another shape: load it anew")
            for name, p in attention.named_parameters():
                p.requires_grad_(name.startswith("lora_"))  # another model for the same backbone has frozen them
            return
        weight = attention.in_proj_weight
        attention.__class__ = cls
        for name in matrices:
            down, up = torch.empty(rank, W), torch.zeros(W, rank)  # drawn on the CPU: a seed means the same everywhere
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))
            attention.register_parameter(f"lora_A_{name}", nn.Parameter(down.to(weight.device)))
            attention.register_parameter(f"lora_B_{name}", nn.Parameter(up.to(weight.device)))
        attention.lora_scale, attention.lora_dropout = alpha / math.sqrt(rank), dropout  # type: ignore[assignment]

    def forward(  # type: ignore[override]
        self, query: torch.Tensor, *_: torch.Tensor, attn_mask: torch.Tensor | None = None, **__: Any
    ) -> tuple[torch.Tensor, None]:
        """query: L x B x W, or B x L x W with batch_first, which is key and value, too. attn_mask: added to the weights'
        logits, L x L or (B H) x L x L."""
        H, E, S = self.num_heads, self.head_dim, query.shape
        parts = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        heads = []
        for name, part in zip(MATRICES, parts, strict=True):
            down = getattr(self, f"lora_A_{name}", None)
            if down is not None:
                x = F.dropout(query, self.lora_dropout, self.training)
                up = getattr(self, f"lora_B_{name}")
                part = part + F.linear(F.linear(x, down.to(x.dtype)), up.to(x.dtype)) * self.lora_scale
            part = part.view(S[0], S[1], H, E)
            heads.append(part.permute(0, 2, 1, 3) if self.batch_first else part.permute(1, 2, 0, 3))  # B x H x L x E
        if attn_mask is not None:
            attn_mask = attn_mask.to(heads[0].dtype)
            attn_mask = attn_mask.view(-1, H, *attn_mask.shape[1:]) if attn_mask.ndim == 3 else attn_mask
        q_BHLE, k_BHLE, v_BHLE = heads
        out_BHLE = F.scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE, attn_mask)
        out = out_BHLE.permute(0, 2, 1, 3) if self.batch_first else out_BHLE.permute(2, 0, 1, 3)
        return self.out_proj(out.reshape(S)), None
