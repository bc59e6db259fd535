"""A CLIP's text encoder for soft prompts, computing each token once where that is exact.

The text tower of most CLIPs is causal, and its feature is read at EOT. So nothing after EOT is computed, prompts that
begin alike share the hidden states of that beginning, and the last layer computes only EOT's query. Everything except
attention works on tokens packed without padding. Other towers (such as SigLIP's, where every position sees every other)
read each prompt whole. The modules and weights are the backbone's own.

Shapes: G prefixes, C classes, N = G x C prompts, P prefix and T tail positions (padded), S packed tokens, Q query
positions, H heads, E width of a head, W = H x E, L context length, R rows of the bank, D features.
"""

import functools
import itertools
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..ranks.collectives import this_rank
from ..ranks.processes import SHARING
from .backbones import as_backbone
from .backbones.protocol import CausalTower
from .doors import Block, DeepText, Form, Inserted, KeyValues, put_together, refuse_outside, taken_apart
from .prompts import HeadRows, PromptPlan

# Bytes that training keeps per token, layer and unit of width, by the bytes of a number that it computes in. Measured were
# 34 and 59 on a GPU (timings/bench_gpu.py), 68 on a CPU in float32 (timings/bench_memory.py).
KEPT_PER_TOKEN = {8: 160, 4: 80, 2: 43}


class _Pick(torch.autograd.Function):
    """Selects rows, each once, so that the backward pass is a copy; that of plain indexing would sort."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = x.shape
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (rows,) = ctx.saved_tensors
        return grads[0].new_zeros(ctx.shape).index_copy_(0, rows, grads[0]), None


class _ToHeads(torch.autograd.Function):
    """Packed tokens, S x (K W), -> the padded rows of their heads, of the prefixes and of the tails, in the layout that
    the matrix products need, so that nothing is copied in between. Masks hide the padding. The backward pass is a
    gather, too."""

    @staticmethod
    def forward(ctx: Any, x_SX: torch.Tensor, heads: HeadRows, E: int) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.heads, ctx.shape = heads, x_SX.shape
        rows = x_SX.reshape(-1, E)
        return rows.index_select(0, heads.from_prefix), rows.index_select(0, heads.from_tail)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        prefix, tail = grads
        return _packed(prefix, tail, ctx.heads).view(ctx.shape), None, None


class _FromHeads(torch.autograd.Function):
    """The inverse of _ToHeads: rows x E of the prefixes and of the tails -> S x W; padding gets no gradient."""

    @staticmethod
    def forward(ctx: Any, prefix: torch.Tensor, tail: torch.Tensor, heads: HeadRows, W: int) -> torch.Tensor:
        ctx.heads, ctx.shapes = heads, (prefix.shape, tail.shape)
        return _packed(prefix, tail, heads).view(-1, W)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_prefix, of_tail = ctx.shapes
        to_prefix, to_tail = ctx.heads.to_prefix, ctx.heads.to_tail
        rows = grads[0].reshape(-1, of_tail[1])
        first, rest = rows.split([len(to_prefix), len(to_tail)])
        return (rows.new_zeros(of_prefix).index_copy_(0, to_prefix, first),
                rows.new_zeros(of_tail).index_copy_(0, to_tail, rest), None, None)  # fmt: skip


def _packed(prefix: torch.Tensor, tail: torch.Tensor, heads: HeadRows) -> torch.Tensor:
    rows = tail.new_empty(len(heads.to_prefix) + len(heads.to_tail), tail.shape[1])
    torch.index_select(prefix, 0, heads.to_prefix, out=rows[: len(heads.to_prefix)])
    torch.index_select(tail, 0, heads.to_tail, out=rows[len(heads.to_prefix) :])
    return rows


Beside = tuple[torch.Tensor, torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]


def _attend(
    q_GHCQE: torch.Tensor,
    prefix: tuple[torch.Tensor, torch.Tensor],
    tail: tuple[torch.Tensor, torch.Tensor],
    prefix_mask: torch.Tensor | None,
    tail_mask: torch.Tensor,
    beside: Beside | None = None,
) -> torch.Tensor:
    """Attention of tail positions to their prefix (keys and values G x H x P x E) and to their own tail
    (G x H x C x T x E), without copying the prefix for each class; G x H x C x Q x E. beside: keys and values of what all
    positions see (H x R x E), and what takes the place of the softmax."""
    G, H, C, Q, E = q_GHCQE.shape
    q_GHCQE = q_GHCQE * E**-0.5
    (kp, vp), (kt, vt) = prefix, tail
    P, T = kp.shape[2], kt.shape[3]

    def to_all(k_HRE: torch.Tensor) -> torch.Tensor:
        return (q_GHCQE.reshape(G, H, C * Q, E) @ k_HRE.transpose(-1, -2)).view(G, H, C, Q, -1)

    def from_all(looks_GHCQR: torch.Tensor, v_HRE: torch.Tensor) -> torch.Tensor:
        return (looks_GHCQR.reshape(G, H, C * Q, -1) @ v_HRE).view(G, H, C, Q, E)

    to_prefix = to_all(kp)
    if prefix_mask is not None:
        to_prefix = to_prefix + prefix_mask
    to_tail = q_GHCQE @ kt.transpose(-1, -2) + tail_mask
    if beside is None:
        weights = torch.cat([to_prefix, to_tail], dim=-1).softmax(dim=-1).to(vt.dtype)
        return from_all(weights[..., :P], vp) + weights[..., P:] @ vt
    k_HRE, v_HRE, looks_at = beside
    weights = looks_at(torch.cat([to_prefix, to_tail, to_all(k_HRE)], dim=-1)).to(vt.dtype)
    found = from_all(weights[..., :P], vp) + weights[..., P : P + T] @ vt
    return found + from_all(weights[..., P + T :], v_HRE)


def _causal_beside(q_GHPE: torch.Tensor, k_GHPE: torch.Tensor, v_GHPE: torch.Tensor, beside: Beside) -> torch.Tensor:
    """Attention of prefix positions to those before them and to what stands beside; G x H x P x E."""
    k_HRE, v_HRE, looks_at = beside
    P, E = q_GHPE.shape[2:]
    q_GHPE = q_GHPE * E**-0.5
    own = (q_GHPE @ k_GHPE.transpose(-1, -2)).masked_fill(q_GHPE.new_ones(P, P).triu(1).bool(), -torch.inf)
    weights = looks_at(torch.cat([own, q_GHPE @ k_HRE.transpose(-1, -2)], dim=-1)).to(v_GHPE.dtype)
    return weights[..., :P] @ v_GHPE + weights[..., P:] @ v_HRE


def _beside(block: Block, given: KeyValues, number: int, dtype: torch.dtype) -> Beside | None:
    """What _attend() needs of the rows that block `number` reads beside its positions."""
    if number not in given.rows:
        return None
    return *given.keys_and_values(block, number, dtype), functools.partial(given.attention, number=number)


class TextEncoder(nn.Module):
    """Encodes a PromptPlan with a backbone's text tower.

    clip_model: a backbone or a plain model of OpenAI's clip.
    mode: "fast" (as described at the top, where the tower allows it) or "plain" (all L positions of every prompt, as the
    model's own encode_text). A tower with modified blocks or attention (hooks, adapters, LoRA) is computed plainly in
    either mode. Replaced linear layers and LayerNorms outside attention are used as they are.
    chunk: prompts computed at a time, 0 to choose by memory; with more than one chunk, training recomputes each in the
    backward pass (activation checkpointing) instead of keeping it.
    memory_budget: bytes that the activations of one chunk may take; 0 for memory_to_use().
    """

    def __init__(self, clip_model: Any, mode: str = "fast", chunk: int = 0, memory_budget: int = 0) -> None:
        super().__init__()
        if mode not in ("fast", "plain"):
            raise ValueError(f'MODEL.TEXT_ENCODER is "{mode}": use "fast" or "plain"')
        self._backbone = as_backbone(clip_model)
        self.model = self._backbone.model  # held, so that it moves with this module
        self.mode, self.chunk, self.memory_budget = mode, chunk, memory_budget
        self.draws = False  # random numbers while it encodes, as a tower with dropout does
        self.training_chunk = chunk  # fixed from the first step on: the order of summation depends on it
        self._compiled: Callable[..., torch.Tensor] | None = None
        self._testing_chunks: dict[tuple[int, int], int] = {}  # for each number of prompts and tokens, fixed too

    @property
    def device(self) -> torch.device:
        return self._backbone.token_embedding.weight.device

    @property
    def path(self) -> str:
        """How prompts are encoded: "fast" or "plain"."""
        return "fast" if self.mode == "fast" and self._backbone.causal_tower() else "plain"

    def compile_training(self) -> None:
        """From now on torch.compile fuses the fast path's kernels where gradients are kept."""
        self._compiled = torch.compile(self._fast, dynamic=False)

    def remember(self, what: tuple[Any, ...], compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """compute(), which depends on `what` and on nothing learned; its result may come from another run's cache."""
        how = (self.path, self.chunk, self.memory_budget, str(self._backbone.text_dtype))
        return self._backbone.remember((*what, *how), compute)

    def forward(
        self,
        plan: PromptPlan,
        learned_vectors_KW: torch.Tensor | None = None,
        deep: DeepText | None = None,
    ) -> torch.Tensor:
        """Text features, not normalised; G x C x D. learned_vectors_KW: the vectors that `slot(k)` stands for.

        deep: block -> M x W, or C x M x W, the vectors that replace the M positions after SOS before that block; or what
        is inserted there, and then each prompt is encoded whole; or what attention reads beside all positions. Raises
        ValueError if a prefix is shorter than what is replaced.
        """
        form, rows = taken_apart(deep)
        self._check_deep(plan, deep)
        bank_RW = plan.bank(self._backbone.token_embedding, learned_vectors_KW).type(self._backbone.text_dtype)
        tower = self._backbone.causal_tower() if self.mode == "fast" and not isinstance(deep, Inserted) else None
        run: Callable[..., torch.Tensor] = functools.partial(self._fast, tower) if tower else self._plain
        size = self._chunk(plan, tower is not None)
        if size >= plan.G * plan.C:
            if tower and self._compiled and torch.is_grad_enabled():
                if not plan.is_laid_out:
                    with torch.no_grad():
                        run(plan, bank_RW, form, *rows)  # builds the plan's tables, which must not be compiled
                run = functools.partial(self._compiled, tower)
            return run(plan, bank_RW, form, *rows)
        if self.draws and torch.is_grad_enabled() and _is_recording():
            raise RuntimeError("dropout in prompts that are encoded in chunks draws twice alike, which is not recorded")
        features, row = [], []
        for of_c, part in plan.parts(size):
            own = [r[of_c] if r.ndim == 3 else r for r in rows]
            if torch.is_grad_enabled():
                # The reentrant kind builds no graph in the forward pass. The non-reentrant one's thousands of small
                # nodes live until the backward pass and keep malloc from reusing freed memory: 9.7 GB instead of 1.5.
                reentrant = any(t.requires_grad for t in (bank_RW, *own))  # it needs an input to hang on
                again = checkpoint(
                    run, part, bank_RW, form, *own, use_reentrant=reentrant, preserve_rng_state=self.draws
                )
                row.append(again)
            else:
                row.append(run(part, bank_RW, form, *own))
            if of_c.stop == plan.C:
                features.append(torch.cat(row, dim=1))
                row = []
        return torch.cat(features)

    def _check_deep(self, plan: PromptPlan, deep: DeepText | None) -> None:
        if isinstance(deep, KeyValues | Inserted):
            return refuse_outside(deep.rows, self._backbone.text_layers, "text")
        numbers, rows = tuple(deep or ()), tuple((deep or {}).values())
        start = len(self._backbone.vocabulary.sos)
        shortest = min(map(len, plan.prefixes)) - start
        longest = max((r.shape[-2] for r in rows), default=0)
        if longest > shortest:
            raise ValueError(
                f"deep prompts have {longest} tokens, but {shortest} stand between SOS and the class names"
            )
        refuse_outside(numbers, self._backbone.text_layers, "text")
        if any(r.ndim == 3 and (plan.G > 1 or len(r) != plan.C) for r in rows):
            raise ValueError("class-wise deep prompts belong to one group of prompts, one for each class")

    def of_all(
        self, plan: PromptPlan, learned_vectors_KW: torch.Tensor | None, deep: DeepText | None = None
    ) -> torch.Tensor:
        """The same for prompts that all ranks of a training need at once. With gradients, each rank encodes a share
        with about as many tokens as the others; G x C x D."""
        ranks = this_rank()
        if not ranks.several or not torch.is_grad_enabled():
            return self(plan, learned_vectors_KW, deep)
        along, places = plan.cuts(ranks.size)
        widths = [end - start for start, end in itertools.pairwise(places)]
        across = plan.G if along == "classes" else plan.C
        share = plan.share(ranks.rank, ranks.size)
        first = places[ranks.rank] if along == "classes" and widths[ranks.rank] else 0
        form, rows = taken_apart(deep)
        own = [r[first : first + share.C] if r.ndim == 3 else r for r in rows]
        own_GCD = self(share, learned_vectors_KW, put_together(form, own))
        own_RD = own_GCD.flatten(0, 1)[: across * widths[ranks.rank]]  # none, where its share is empty
        all_ND = ranks.gather(own_RD, [across * width for width in widths])
        if along == "groups":
            return all_ND.view(plan.G, plan.C, -1)
        parts = all_ND.split([plan.G * width for width in widths])
        return torch.cat([p.view(plan.G, n, -1) for p, n in zip(parts, widths, strict=True) if n], dim=1)

    def _chunk(self, plan: PromptPlan, fast: bool) -> int:
        prompts = plan.G * plan.C
        if torch.is_grad_enabled():
            if not self.training_chunk:
                self.training_chunk = self._choose_chunk(plan, fast)
                if self._compiled and self.training_chunk < prompts:
                    print("Note: prompts are encoded in chunks, for want of memory, and chunks are not compiled")
            return self.training_chunk
        what = prompts, plan.n_tokens
        if what not in self._testing_chunks:
            self._testing_chunks[what] = self.chunk or self._choose_chunk(plan, fast)
        return self._testing_chunks[what]

    def _choose_chunk(self, plan: PromptPlan, fast: bool) -> int:
        prompts = plan.G * plan.C
        tokens = plan.n_tokens if fast else prompts * plan.context_length
        kind = self.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self._backbone.text_dtype
        W, layers = self._backbone.text_width, self._backbone.text_layers
        needed = tokens * KEPT_PER_TOKEN[dtype.itemsize] * W * layers
        if fast and (tower := self._backbone.causal_tower()):
            H = tower.blocks[0].attn.num_heads  # keys, values and weights of attention are padded to the longest name
            padding, tails = plan.G * (plan.P + plan.C * plan.T) - tokens, prompts * plan.T
            needed += layers * dtype.itemsize * (padding * 4 * W + tails * 2 * H * (plan.P + plan.T))
        budget = self.memory_budget or memory_to_use(self.device)
        return prompts if needed <= budget else max(1, prompts * budget // needed)

    def _plain(self, plan: PromptPlan, bank_RW: torch.Tensor, form: Form, *rows: torch.Tensor) -> torch.Tensor:
        x_NLW = F.embedding(plan.whole_prompts(), bank_RW)
        return self._backbone.run_text(x_NLW, plan.length_N, put_together(form, rows)).view(plan.G, plan.C, -1)

    def _fast(
        self,
        tower: CausalTower,
        plan: PromptPlan,
        bank_RW: torch.Tensor,
        form: Form,
        *rows: torch.Tensor,
    ) -> torch.Tensor:
        given, (G, C) = put_together(form, rows), (plan.G, plan.C)
        beside = given if isinstance(given, KeyValues) else KeyValues({})
        deep = given if isinstance(given, Mapping) else {}
        x_SW = F.embedding(plan.rows_S, bank_RW) + tower.positional_embedding[plan.position_S].type(bank_RW.dtype)
        *blocks, last = tower.blocks
        for number, block in enumerate(blocks):
            if number in deep:
                x_SW, plan = self._replace(x_SW, deep[number], plan, C)
            x_SW = x_SW + block.scale_1(block.attn.out_proj(self._attention(block, x_SW, plan, beside, number)))
            x_SW = x_SW + block.scale_2(block.mlp(block.ln_2(x_SW)))
        if len(blocks) in deep:
            x_SW, plan = self._replace(x_SW, deep[len(blocks)], plan, C)
        found_NW = last.attn.out_proj(self._attention_at_eot(last, x_SW, plan, beside, len(blocks)))
        x_NW = _Pick.apply(x_SW, plan.eot_N) + last.scale_1(found_NW)
        x_NW = x_NW + last.scale_2(last.mlp(last.ln_2(x_NW)))
        return tower.finish(x_NW).view(G, C, -1)

    def _replace(
        self, x_SW: torch.Tensor, rows: torch.Tensor, plan: PromptPlan, C: int
    ) -> tuple[torch.Tensor, PromptPlan]:
        """Puts M x W into the M positions behind SOS of every prefix; of C x M x W each into its class's, whose prefixes
        are no longer shared from then on."""
        if rows.ndim == 3 and plan.C > 1:
            x_SW, plan = x_SW.index_select(0, plan.unshared_rows()), plan.unshared()
        M, start = rows.shape[-2], len(self._backbone.vocabulary.sos)
        places = plan.prefix_rows(start, M)
        rows_KW = (rows if rows.ndim == 3 else rows.expand(plan.G, -1, -1)).reshape(-1, rows.shape[-1])
        return x_SW.index_copy(0, places, rows_KW.to(x_SW.dtype)), plan

    def _heads(
        self, x_SX: torch.Tensor, K: int, H: int, plan: PromptPlan
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """K parts of a projection, head by head: G x H x P x E of the prefixes, G x H x C x T x E of the tails."""
        E = x_SX.shape[1] // (K * H)
        prefix, tail = _ToHeads.apply(x_SX, plan.heads(K, H), E)
        return prefix.view(K, plan.G, H, plan.P, E).unbind(), tail.view(K, plan.G, H, plan.C, plan.T, E).unbind()

    def _prefix_mask(self, plan: PromptPlan, dtype: torch.dtype) -> torch.Tensor | None:
        return plan.prefix_mask_GP[:, None, None, None].type(dtype) if plan.prefixes_differ else None

    def _attention(
        self, block: Block, x_SW: torch.Tensor, plan: PromptPlan, given: KeyValues, number: int
    ) -> torch.Tensor:
        """Causal attention of every token, before the output projection; S x W."""
        attn, H, W = block.attn, block.attn.num_heads, x_SW.shape[1]
        qkv_SX = F.linear(block.ln_1(x_SW), attn.in_proj_weight, attn.in_proj_bias)
        (qp, kp, vp), (qt, kt, vt) = self._heads(qkv_SX, 3, H, plan)
        beside = _beside(block, given, number, x_SW.dtype)
        if beside is None:
            prefix_GHPE = F.scaled_dot_product_attention(qp, kp, vp, is_causal=True)
        else:
            prefix_GHPE = _causal_beside(qp, kp, vp, beside)
        tail_mask = plan.causal_TT.type(qt.dtype)
        tail_GHCTE = _attend(qt, (kp, vp), (kt, vt), self._prefix_mask(plan, qt.dtype), tail_mask, beside)
        E = W // H
        return _FromHeads.apply(prefix_GHPE.reshape(-1, E), tail_GHCTE.reshape(-1, E), plan.heads(1, H), W)

    def _attention_at_eot(
        self, block: Block, x_SW: torch.Tensor, plan: PromptPlan, given: KeyValues, number: int
    ) -> torch.Tensor:
        """The same, for each prompt's EOT only; N x W."""
        attn, G, C, T = block.attn, plan.G, plan.C, plan.T
        H, W = attn.num_heads, x_SW.shape[1]
        h_SW = block.ln_1(x_SW)
        q_NW = F.linear(_Pick.apply(h_SW, plan.eot_N), attn.in_proj_weight[:W], attn.in_proj_bias[:W])
        kv_SX = F.linear(h_SW, attn.in_proj_weight[W:], attn.in_proj_bias[W:])
        prefix, tail = self._heads(kv_SX, 2, H, plan)
        q_GHCQE = q_NW.view(G, C, 1, H, -1).permute(0, 3, 1, 2, 4)
        tail_mask = plan.eot_mask_NT.view(G, 1, C, 1, T).type(q_NW.dtype)
        (kp, vp), (kt, vt) = prefix, tail
        beside = _beside(block, given, number, x_SW.dtype)
        out_GHCQE = _attend(q_GHCQE, (kp, vp), (kt, vt), self._prefix_mask(plan, q_NW.dtype), tail_mask, beside)
        return out_GHCQE.permute(0, 2, 3, 1, 4).reshape(G * C, W)


def _is_recording() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def memory_to_use(device: torch.device) -> int:
    """Bytes that a chunk may take. On a GPU, half of its total memory, so that a run always uses the same chunks,
    whatever else uses the GPU; of runs that the scripts put on it together, each has its share of that. On a CPU, half of
    the free memory, as far as it is known."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory // (2 * int(os.environ.get(SHARING) or 1))
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
