"""A CLIP's text encoder for soft prompts, computing each token once where that is exact.

The text tower of most CLIPs is causal and its feature is read at EOT. So nothing after EOT matters; prompts that begin
alike share the hidden states of that beginning; and in the last layer only EOT needs a query. Everything but attention
works on tokens packed without padding. Other towers (SigLIP's, where every position sees every other) read each prompt
whole. The modules and weights are the backbone's own.

Shapes: G prefixes, C classes, N = G x C prompts, P prefix and T tail positions (padded), S packed tokens, Q query
positions, H heads, E width of a head, W = H x E, L context length, R rows of the bank, D features.
"""

import functools
import itertools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .backbones import as_backbone
from .backbones.protocol import Block, CausalTower
from .prompts import PromptPlan
from .ranks import here

# Numbers that training keeps per token, layer and unit of width, with room for gradients: benchmarks/bench_memory.py
# measured 17 at the peak of 5 x 100 prompts.
KEPT_PER_TOKEN = 40


class _Pad(torch.autograd.Function):
    """Packed rows -> padded rows. Padding holds row 0, which masks keep from mattering; backward is a gather too."""

    @staticmethod
    def forward(ctx: Any, packed: torch.Tensor, from_packed: torch.Tensor, to_packed: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(to_packed)
        return packed.index_select(0, from_packed)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (to_packed,) = ctx.saved_tensors
        return grads[0].index_select(0, to_packed), None, None


class _Unpad(torch.autograd.Function):
    """Padded rows -> packed rows, the inverse of _Pad; padding gets no gradient."""

    @staticmethod
    def forward(ctx: Any, padded: torch.Tensor, to_packed: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(to_packed)
        ctx.shape = padded.shape
        return padded.index_select(0, to_packed)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (to_packed,) = ctx.saved_tensors
        return grads[0].new_zeros(ctx.shape).index_copy_(0, to_packed, grads[0]), None


def _attend(
    q_GHCQE: torch.Tensor,
    prefix: tuple[torch.Tensor, torch.Tensor],
    tail: tuple[torch.Tensor, torch.Tensor],
    prefix_mask: torch.Tensor,
    tail_mask: torch.Tensor,
) -> torch.Tensor:
    """Attention of tail positions to their prefix (keys and values G x H x P x E) and to their own tail
    (G x H x C x T x E), without copying the prefix for each class; (G C Q) x W."""
    G, H, C, Q, E = q_GHCQE.shape
    q_GHCQE = q_GHCQE * E**-0.5
    (kp, vp), (kt, vt) = prefix, tail
    P = kp.shape[2]
    to_prefix = (q_GHCQE.reshape(G, H, C * Q, E) @ kp.transpose(-1, -2)).view(G, H, C, Q, P) + prefix_mask
    to_tail = q_GHCQE @ kt.transpose(-1, -2) + tail_mask
    weights = torch.cat([to_prefix, to_tail], dim=-1).softmax(dim=-1).to(vt.dtype)
    from_prefix = (weights[..., :P].reshape(G, H, C * Q, P) @ vp).view(G, H, C, Q, E)
    out_GHCQE = from_prefix + weights[..., P:] @ vt
    return out_GHCQE.permute(0, 2, 3, 1, 4).reshape(G * C * Q, H * E)


class TextEncoder(nn.Module):
    """Encodes a PromptPlan with a backbone's text tower.

    clip_model: a backbone or a plain model of OpenAI's clip.
    mode: "fast" (as described at the top, where the tower allows it) or "plain" (all L positions of every prompt, as the
    model's own encode_text). A tower whose blocks or attention are no longer its authors' own (hooks, adapters, LoRA) is
    computed plainly in either mode; what replaces the linear layers and LayerNorms beside attention is used as it stands.
    chunk: prompts computed at a time, 0 to choose by memory; with more than one chunk, training recomputes each in the
    backward pass (activation checkpointing) instead of keeping it.
    memory_budget: bytes that the activations of one chunk may take; 0 for half of what is free at the first step.
    """

    def __init__(self, clip_model: Any, mode: str = "fast", chunk: int = 0, memory_budget: int = 0) -> None:
        super().__init__()
        if mode not in ("fast", "plain"):
            raise ValueError(f'MODEL.TEXT_ENCODER is "{mode}": use "fast" or "plain"')
        self._backbone = as_backbone(clip_model)
        self.model = self._backbone.model  # held, so that it moves with this module
        self.mode, self.chunk, self.memory_budget = mode, chunk, memory_budget
        self.training_chunk = chunk  # fixed from the first step on: the order of summation depends on it
        self._testing_chunks: dict[tuple[int, int], int] = {}  # for each number of prompts and tokens, fixed too

    @property
    def device(self) -> torch.device:
        return self._backbone.token_embedding.weight.device

    @property
    def path(self) -> str:
        """How prompts are encoded: "fast" or "plain"."""
        return "fast" if self.mode == "fast" and self._backbone.causal_tower() else "plain"

    def remember(self, what: tuple[Any, ...], compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """compute(), which this encoder makes of `what` without anything learned; from another run where that is kept."""
        how = (self.path, self.chunk, self.memory_budget, str(self._backbone.text_dtype))
        return self._backbone.remember((*what, *how), compute)

    def forward(self, plan: PromptPlan, learned_vectors_KW: torch.Tensor | None = None) -> torch.Tensor:
        """Text features, not normalised; G x C x D. learned_vectors_KW: the vectors that `slot(k)` stands for."""
        bank_RW = plan.bank(self._backbone.token_embedding, learned_vectors_KW).type(self._backbone.text_dtype)
        tower = self._backbone.causal_tower() if self.mode == "fast" else None
        run = functools.partial(self._fast, tower) if tower else self._plain
        size = self._chunk(plan, tower is not None)
        if size >= plan.G * plan.C:
            return run(plan, bank_RW)
        features, row = [], []
        for of_c, part in plan.parts(size):
            if torch.is_grad_enabled():
                # The reentrant kind builds no graph in the forward pass. The other one's thousands of small nodes,
                # alive until the backward pass, keep malloc from using freed memory again: 9.7 GB instead of 1.5.
                reentrant = bank_RW.requires_grad  # it needs an input to hang on
                row.append(checkpoint(run, part, bank_RW, use_reentrant=reentrant, preserve_rng_state=False))
            else:
                row.append(run(part, bank_RW))
            if of_c.stop == plan.C:
                features.append(torch.cat(row, dim=1))
                row = []
        return torch.cat(features)

    def of_all(self, plan: PromptPlan, learned_vectors_KW: torch.Tensor) -> torch.Tensor:
        """The same, of prompts that all ranks of a training ask for at once: where gradients are kept, each encodes a share
        of about as many tokens as the others'; G x C x D."""
        ranks = here()
        if not ranks.several or not torch.is_grad_enabled():
            return self(plan, learned_vectors_KW)
        along, places = plan.cuts(ranks.size)
        widths = [end - start for start, end in itertools.pairwise(places)]
        across = plan.G if along == "classes" else plan.C
        own_GCD = self(plan.share(ranks.rank, ranks.size), learned_vectors_KW)
        own_RD = own_GCD.flatten(0, 1)[: across * widths[ranks.rank]]  # none, where its share is empty
        all_ND = ranks.gather(own_RD, [across * width for width in widths])
        if along == "groups":
            return all_ND.view(plan.G, plan.C, -1)
        parts = all_ND.split([plan.G * width for width in widths])
        return torch.cat([p.view(plan.G, n, -1) for p, n in zip(parts, widths, strict=True) if n], dim=1)

    def _chunk(self, plan: PromptPlan, fast: bool) -> int:
        prompts = plan.G * plan.C
        if torch.is_grad_enabled():
            self.training_chunk = self.training_chunk or self._choose_chunk(plan, fast)
            return self.training_chunk
        what = prompts, plan.n_tokens
        if what not in self._testing_chunks:
            self._testing_chunks[what] = self.chunk or self._choose_chunk(plan, fast)
        return self._testing_chunks[what]

    def _choose_chunk(self, plan: PromptPlan, fast: bool) -> int:
        prompts = plan.G * plan.C
        tokens = plan.n_tokens if fast else prompts * plan.context_length
        per_layer = KEPT_PER_TOKEN * self._backbone.text_width * self._backbone.token_embedding.weight.element_size()
        needed = tokens * per_layer * self._backbone.text_layers
        budget = self.memory_budget or free_memory(self.device) // 2
        return prompts if needed <= budget else max(1, prompts * budget // needed)

    def _plain(self, plan: PromptPlan, bank_RW: torch.Tensor) -> torch.Tensor:
        x_NLW = F.embedding(plan.whole_prompts(), bank_RW)
        return self._backbone.run_text(x_NLW, plan.length_N).view(plan.G, plan.C, -1)

    def _fast(self, tower: CausalTower, plan: PromptPlan, bank_RW: torch.Tensor) -> torch.Tensor:
        x_SW = F.embedding(plan.rows_S, bank_RW) + tower.positional_embedding[plan.position_S].type(bank_RW.dtype)
        *blocks, last = tower.blocks
        for block in blocks:
            x_SW = x_SW + block.scale_1(block.attn.out_proj(self._attention(block, x_SW, plan)))
            x_SW = x_SW + block.scale_2(block.mlp(block.ln_2(x_SW)))
        x_NW = x_SW[plan.eot_N] + last.scale_1(last.attn.out_proj(self._attention_at_eot(last, x_SW, plan)))
        x_NW = x_NW + last.scale_2(last.mlp(last.ln_2(x_NW)))
        return tower.finish(x_NW).view(plan.G, plan.C, -1)

    def _attention(self, block: Block, x_SW: torch.Tensor, plan: PromptPlan) -> torch.Tensor:
        """Causal attention of every token, before the output projection; S x W."""
        attn, G, C, P, T = block.attn, plan.G, plan.C, plan.P, plan.T
        H = attn.num_heads
        qkv_SX = F.linear(block.ln_1(x_SW), attn.in_proj_weight, attn.in_proj_bias)
        prefix_SX, tail_SX = qkv_SX.split([plan.n_prefix, len(qkv_SX) - plan.n_prefix])
        prefix = _Pad.apply(prefix_SX, plan.prefix_from_packed, plan.prefix_to_packed)
        qp, kp, vp = prefix.view(G, P, 3, H, -1).permute(2, 0, 3, 1, 4)
        prefix_GHPE = F.scaled_dot_product_attention(qp, kp, vp, is_causal=True)
        prefix_SW = _Unpad.apply(prefix_GHPE.permute(0, 2, 1, 3).reshape(G * P, -1), plan.prefix_to_packed)
        tail = _Pad.apply(tail_SX, plan.tail_from_packed, plan.tail_to_packed)
        qt, kt, vt = tail.view(G, C, T, 3, H, -1).permute(3, 0, 4, 1, 2, 5)
        masks = plan.prefix_mask_GP[:, None, None, None].type(qt.dtype), plan.causal_TT.type(qt.dtype)
        tail_SW = _Unpad.apply(_attend(qt, (kp, vp), (kt, vt), *masks), plan.tail_to_packed)
        return torch.cat([prefix_SW, tail_SW])

    def _attention_at_eot(self, block: Block, x_SW: torch.Tensor, plan: PromptPlan) -> torch.Tensor:
        """The same, for each prompt's EOT only; N x W."""
        attn, G, C, P, T = block.attn, plan.G, plan.C, plan.P, plan.T
        H, W = attn.num_heads, x_SW.shape[1]
        h_SW = block.ln_1(x_SW)
        q = F.linear(h_SW[plan.eot_N], attn.in_proj_weight[:W], attn.in_proj_bias[:W])
        kv_SX = F.linear(h_SW, attn.in_proj_weight[W:], attn.in_proj_bias[W:])
        prefix_SX, tail_SX = kv_SX.split([plan.n_prefix, len(kv_SX) - plan.n_prefix])
        prefix = _Pad.apply(prefix_SX, plan.prefix_from_packed, plan.prefix_to_packed)
        tail = _Pad.apply(tail_SX, plan.tail_from_packed, plan.tail_to_packed)
        kp, vp = prefix.view(G, P, 2, H, -1).permute(2, 0, 3, 1, 4)
        kt, vt = tail.view(G, C, T, 2, H, -1).permute(3, 0, 4, 1, 2, 5)
        q_GHCQE = q.view(G, C, 1, H, -1).permute(0, 3, 1, 2, 4)
        masks = (
            plan.prefix_mask_GP[:, None, None, None].type(q.dtype),
            plan.eot_mask_NT.view(G, 1, C, 1, T).type(q.dtype),
        )
        return _attend(q_GHCQE, (kp, vp), (kt, vt), *masks)


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated on `device` now, as far as it can be known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
