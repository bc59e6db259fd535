"""What a method changes inside a tower: tokens that it inserts or replaces before some blocks, rows that it lets attention
read, and changes of low rank.

Shapes: B pictures, P positions of the visual tower, N prompts, C classes, L positions of the text tower, M prompt tokens,
W width, H heads, E width of a head, R rows of all contexts of a block or rank of a change, K contexts.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

Rows = Mapping[int, torch.Tensor]  # block -> M x W, or C x M x W: what replaces the M positions behind SOS before it


@dataclass(frozen=True)
class Inserted:
    """Rows of the text tower that have no positions of their own: those of the first block in `rows` are inserted behind
    SOS there; before a later block they are replaced by its own rows and `keeps` of what they have become."""

    rows: Rows
    keeps: float = 0.0


@dataclass(frozen=True)
class Block:
    """A block of a transformer with LayerNorms before attention and MLP; scale_1 and scale_2 follow them."""

    ln_1: Any
    attn: nn.MultiheadAttention
    ln_2: Any
    mlp: Any
    scale_1: Any
    scale_2: Any


@dataclass(frozen=True)
class VisualPrompts:
    """Prompt tokens of a visual transformer.

    rows: block -> M x W, or B x M x W where each picture has its own: the tokens used from that block on, until another
    block replaces them. entry: where the tokens of block 0 are inserted, "before_ln_pre", as in VPT, IVLP and MaPLe, or
    "after_ln_pre". place: at the "end" of the sequence, or "after_class". Tokens of a later block than the first are
    inserted before it. reads: whether what the tower makes of the last tokens is wanted, too. keeps: share of what the
    tokens have become that stays where another block replaces them. Raises ValueError for other words.
    """

    rows: Mapping[int, torch.Tensor]
    entry: str = "before_ln_pre"
    place: str = "end"
    reads: bool = False
    keeps: float = 0.0

    def __post_init__(self) -> None:
        if self.entry not in ("before_ln_pre", "after_ln_pre") or self.place not in ("end", "after_class"):
            raise ValueError(
                f'visual prompts stand "{self.entry}", "{self.place}": use before_ln_pre, after_ln_pre, end, after_class'
            )


def through_visual(
    x_BPW: torch.Tensor,
    prompts: "DeepVisual",
    ln_pre: Callable[[torch.Tensor], torch.Tensor],
    blocks: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    parts: Callable[[], Sequence[Block] | None],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Class token and patches with their positions, through a visual transformer with prompts; B x P x W, and what has
    become of the prompts, B x M x W. parts: gives the blocks' own, or None where something has been changed in them.
    Raises ValueError for a block that the tower does not have."""
    refuse_outside(prompts.rows, len(blocks), "visual")
    if not isinstance(prompts, VisualPrompts):
        x_BPW = ln_pre(x_BPW)
        for block in _with_changed_attention(prompts, blocks, parts()):
            x_BPW = block(x_BPW)
        return x_BPW, x_BPW[:, :0]
    P = x_BPW.shape[1]

    def put(x_BPW: torch.Tensor, block: int) -> torch.Tensor:
        rows_BMW = prompts.rows[block].to(x_BPW.dtype).expand(x_BPW.shape[0], -1, -1)
        at_end, M = prompts.place == "end", x_BPW.shape[1] - P
        if M and prompts.keeps:
            before_BMW = x_BPW[:, P:] if at_end else x_BPW[:, 1 : M + 1]
            rows_BMW = (1 - prompts.keeps) * rows_BMW + prompts.keeps * before_BMW
        if at_end:
            return torch.cat([x_BPW[:, :P], rows_BMW], dim=1)
        return torch.cat([x_BPW[:, :1], rows_BMW, x_BPW[:, M + 1 :]], dim=1)

    early = 0 in prompts.rows and prompts.entry == "before_ln_pre"
    x_BPW = ln_pre(put(x_BPW, 0) if early else x_BPW)
    for number, block in enumerate(blocks):
        if number in prompts.rows and not (early and number == 0):
            x_BPW = put(x_BPW, number)
        x_BPW = block(x_BPW)
    if prompts.place == "end":
        return x_BPW[:, :P], x_BPW[:, P:]
    M = x_BPW.shape[1] - P
    return torch.cat([x_BPW[:, :1], x_BPW[:, M + 1 :]], dim=1), x_BPW[:, 1 : M + 1]


def through_text(
    x_NLW: torch.Tensor,
    deep: "DeepText",
    start: int,
    blocks: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    parts: Callable[[], Sequence[Block] | None],
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Prompts with their positions, through a text tower whose positions from `start` on are replaced before some blocks;
    N x L x W, with Inserted N x (M + L) x W. The N prompts stand in groups of all classes. parts: gives the blocks' own, or
    None where something has been changed in them. mask: of the tower. Raises ValueError for a block that the tower does not
    have."""
    inserted = deep if isinstance(deep, Inserted) else Inserted({})
    given = deep.rows if isinstance(deep, Inserted | KeyValues) else deep
    refuse_outside(given, len(blocks), "text")
    if isinstance(deep, KeyValues):
        for block in _with_changed_attention(deep, blocks, parts(), mask):
            x_NLW = block(x_NLW)
        return x_NLW
    first = min(inserted.rows, default=-1)
    for number, block in enumerate(blocks):
        if number in given:
            rows = given[number].to(x_NLW.dtype)
            rows_NMW = (
                rows.expand(x_NLW.shape[0], -1, -1)
                if rows.ndim == 2
                else rows.repeat(x_NLW.shape[0] // len(rows), 1, 1)
            )
            behind = start if number == first else start + rows_NMW.shape[1]
            if inserted.keeps and number != first:
                rows_NMW = (1 - inserted.keeps) * rows_NMW + inserted.keeps * x_NLW[:, start:behind]
            x_NLW = torch.cat([x_NLW[:, :start], rows_NMW, x_NLW[:, behind:]], dim=1)
        x_NLW = block(x_NLW)
    return x_NLW


@dataclass(frozen=True)
class KeyValues:
    """Rows that a block's attention reads beside its own positions, as keys and values alone: every position sees them,
    none of them looks, and nothing of them goes on to the next block.

    rows: block -> R x W. lengths: where it is not empty, the R rows are K contexts of so many rows each, one after the
    other, and the block's attention is the sum of those to each of them, weighted by weights[block], K.
    """

    rows: Mapping[int, torch.Tensor]
    lengths: tuple[int, ...] = ()
    weights: Mapping[int, torch.Tensor] = field(default_factory=dict)
    reads: ClassVar[bool] = False  # as VisualPrompts has it

    def keys_and_values(self, block: Block, number: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the rows of block `number`; H x R x E each."""
        attn, rows_RW = block.attn, self.rows[number].to(dtype)
        W = rows_RW.shape[1]
        kv_R2W = F.linear(block.ln_1(rows_RW), attn.in_proj_weight[W:], attn.in_proj_bias[W:])
        k_HRE, v_HRE = kv_R2W.view(len(rows_RW), 2, attn.num_heads, -1).permute(1, 2, 0, 3)
        return k_HRE, v_HRE

    def attention(self, scores: torch.Tensor, number: int) -> torch.Tensor:
        """What each position looks at, of its scores, ... x (own + R): the softmax, or the weighted sum of those over the
        own positions and one context each. The sum of such attentions to the same values is one attention."""
        if not self.lengths:
            return scores.softmax(-1)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        own, *each = scores.split([scores.shape[-1] - sum(self.lengths), *self.lengths], -1)
        of_own = own.logsumexp(-1, keepdim=True)
        of_both = [
            torch.logaddexp(of_own, rows.logsumexp(-1, keepdim=True)) if rows.shape[-1] else of_own for rows in each
        ]
        weights = self.weights[number].to(scores.dtype)
        shares = [weight * (of_own - total).exp() for weight, total in zip(weights, of_both, strict=True)]
        beside = [weight * (rows - total).exp() for weight, rows, total in zip(weights, each, of_both, strict=True)]
        return torch.cat([(own - of_own).exp() * sum(shares), *beside], -1)


@dataclass(frozen=True)
class LowRank:
    """What a change of low rank adds to the queries, keys and values of a block's attention in the picture tower.

    rows: block -> B x R x 4W, each picture's own: A, R x W, beside B^T, R x 3W; x W_qkv becomes x W_qkv + x A^T B^T.
    """

    rows: Mapping[int, torch.Tensor]
    reads: ClassVar[bool] = False

    def added(self, number: int, x_BPW: torch.Tensor) -> torch.Tensor:
        """B x P x 3W, for the positions as the attention of block `number` sees them."""
        W = x_BPW.shape[2]
        a_BRW, b_BRX = self.rows[number].to(x_BPW.dtype).split([W, 3 * W], dim=-1)
        return x_BPW @ a_BRW.transpose(1, 2) @ b_BRX


def _with_changed_attention(
    prompts: KeyValues | LowRank,
    blocks: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    parts: Sequence[Block] | None,
    mask: torch.Tensor | None = None,
) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """A tower's blocks on N x P x W: as they are, and in parts where their attention is changed.
    mask: added to the scores of the own positions. Raises ValueError where there are no parts."""
    if parts is None:
        raise ValueError("this tower's blocks are no plain ones, and keep their attention: use another backbone")
    return [
        functools.partial(_in_parts, block, prompts, number, mask) if number in prompts.rows else call
        for number, (call, block) in enumerate(zip(blocks, parts, strict=True))
    ]


def _in_parts(
    block: Block, prompts: KeyValues | LowRank, number: int, mask: torch.Tensor | None, x_NPW: torch.Tensor
) -> torch.Tensor:
    attn, (N, P, W) = block.attn, x_NPW.shape
    seen_NPW = block.ln_1(x_NPW)
    qkv_NPX = F.linear(seen_NPW, attn.in_proj_weight, attn.in_proj_bias)
    attend: Callable[..., torch.Tensor]
    if isinstance(prompts, LowRank):
        qkv_NPX, attend = qkv_NPX + prompts.added(number, seen_NPW), F.scaled_dot_product_attention
    else:
        attend = functools.partial(_beside_rows, block, prompts, number, mask)
    found_NHPE = attend(*qkv_NPX.view(N, P, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4))
    x_NPW = x_NPW + block.scale_1(attn.out_proj(found_NHPE.transpose(1, 2).reshape(N, P, W)))
    return x_NPW + block.scale_2(block.mlp(block.ln_2(x_NPW)))


def _beside_rows(
    block: Block, prompts: KeyValues, number: int, mask: torch.Tensor | None, q_NHPE: torch.Tensor, k_NHPE: torch.Tensor,
    v_NHPE: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Attention to the own positions and to the rows beside them."""
    N, _, P, E = q_NHPE.shape
    k_HRE, v_HRE = prompts.keys_and_values(block, number, q_NHPE.dtype)
    q_NHPE = q_NHPE * E**-0.5
    own = q_NHPE @ k_NHPE.transpose(-1, -2)
    if mask is not None:
        own = own + (mask if mask.ndim == 2 else mask.view(N, -1, P, P)).to(own.dtype)
    looks = prompts.attention(torch.cat([own, q_NHPE @ k_HRE.transpose(-1, -2)], -1), number).to(q_NHPE.dtype)
    return looks[..., :P] @ v_NHPE + looks[..., P:] @ v_HRE


DeepText = Rows | Inserted | KeyValues  # what a text tower takes besides its prompts
DeepVisual = VisualPrompts | KeyValues | LowRank  # and a picture tower besides its patches
Form = tuple[tuple[int, ...], Any]  # its blocks, and what else is fixed of it: None, keeps, or lengths


def taken_apart(deep: DeepText | None) -> tuple[Form, tuple[torch.Tensor, ...]]:
    """What is fixed of it, and its tensors, for what follows gradients through arguments alone."""
    if isinstance(deep, KeyValues):
        return (tuple(deep.rows), deep.lengths), (*deep.rows.values(), *deep.weights.values())
    if isinstance(deep, Inserted):
        return (tuple(deep.rows), deep.keeps), tuple(deep.rows.values())
    return (tuple(deep or ()), None), tuple((deep or {}).values())


def put_together(form: Form, tensors: Sequence[torch.Tensor]) -> DeepText:
    numbers, rest = form
    rows = dict(zip(numbers, tensors, strict=False))
    if rest is None:
        return rows
    if isinstance(rest, float):
        return Inserted(rows, rest)
    return KeyValues(rows, rest, dict(zip(numbers, tensors[len(numbers) :], strict=False)))


def longer_mask(mask: torch.Tensor, more: int) -> torch.Tensor:
    """A causal mask, L x L, for `more` positions more."""
    L = mask.shape[-1] + more
    return torch.full((L, L), float("-inf"), dtype=mask.dtype, device=mask.device).triu_(1)


def refuse_outside(numbers: Iterable[int], blocks: int, tower: str) -> None:
    """Raises ValueError for the first of `numbers` that is no block of a tower of so many."""
    outside = [number for number in numbers if not 0 <= number < blocks]
    if outside:
        raise ValueError(f"{tower} prompts for block {outside[0]}: this tower has blocks 0 to {blocks - 1}")
