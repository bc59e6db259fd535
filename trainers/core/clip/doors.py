"""Prompt tokens inside a tower: how a method inserts or replaces them before some blocks.

Shapes: B pictures, P positions of the visual tower, N prompts, C classes, L positions of the text tower, M prompt tokens,
W width.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

DeepText = Mapping[
    int, torch.Tensor
]  # block -> M x W, or C x M x W: what replaces the M positions behind SOS before it


@dataclass(frozen=True)
class VisualPrompts:
    """Prompt tokens of a visual transformer.

    rows: block -> M x W, the tokens used from that block on, until another block replaces them. entry: where the tokens
    of block 0 are inserted, "before_ln_pre", as in VPT, IVLP and MaPLe, or "after_ln_pre". place: at the "end" of the
    sequence, or "after_class". Tokens of a later block than the first are inserted before it. reads: whether what the
    tower makes of the last tokens is wanted, too. Raises ValueError for other words.
    """

    rows: Mapping[int, torch.Tensor]
    entry: str = "before_ln_pre"
    place: str = "end"
    reads: bool = False

    def __post_init__(self) -> None:
        if self.entry not in ("before_ln_pre", "after_ln_pre") or self.place not in ("end", "after_class"):
            raise ValueError(
                f'visual prompts stand "{self.entry}", "{self.place}": use before_ln_pre, after_ln_pre, end, after_class'
            )


def through_visual(
    x_BPW: torch.Tensor,
    prompts: VisualPrompts,
    ln_pre: Callable[[torch.Tensor], torch.Tensor],
    blocks: Sequence[Callable[[torch.Tensor], torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Class token and patches with their positions, through a visual transformer with prompts; B x P x W, and what has
    become of the prompts, B x M x W. Raises ValueError for a block that the tower does not have."""
    refuse_outside(prompts.rows, len(blocks), "visual")
    P = x_BPW.shape[1]

    def put(x_BPW: torch.Tensor, block: int) -> torch.Tensor:
        rows_BMW = prompts.rows[block].to(x_BPW.dtype).expand(x_BPW.shape[0], -1, -1)
        if prompts.place == "end":
            return torch.cat([x_BPW[:, :P], rows_BMW], dim=1)
        return torch.cat([x_BPW[:, :1], rows_BMW, x_BPW[:, x_BPW.shape[1] - P + 1 :]], dim=1)

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
    deep: DeepText,
    start: int,
    blocks: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    inserts: bool = False,
) -> torch.Tensor:
    """Prompts with their positions, through a text tower whose positions from `start` on are replaced before some blocks;
    N x L x W. The N prompts stand in groups of all classes. inserts: the first rows are put before position `start`, and
    the following ones take their place; N x (M + L) x W. Raises ValueError for a block that the tower does not have."""
    refuse_outside(deep, len(blocks), "text")
    first = min(deep, default=-1) if inserts else -1
    for number, block in enumerate(blocks):
        if number in deep:
            rows = deep[number].to(x_NLW.dtype)
            rows_NMW = (
                rows.expand(x_NLW.shape[0], -1, -1)
                if rows.ndim == 2
                else rows.repeat(x_NLW.shape[0] // len(rows), 1, 1)
            )
            behind = start if number == first else start + rows_NMW.shape[1]
            x_NLW = torch.cat([x_NLW[:, :start], rows_NMW, x_NLW[:, behind:]], dim=1)
        x_NLW = block(x_NLW)
    return x_NLW


def longer_mask(mask: torch.Tensor, more: int) -> torch.Tensor:
    """A causal mask, L x L, for `more` positions more."""
    L = mask.shape[-1] + more
    return torch.full((L, L), float("-inf"), dtype=mask.dtype, device=mask.device).triu_(1)


def refuse_outside(numbers: Iterable[int], blocks: int, tower: str) -> None:
    """Raises ValueError for the first of `numbers` that is no block of a tower of so many."""
    outside = [number for number in numbers if not 0 <= number < blocks]
    if outside:
        raise ValueError(f"{tower} prompts for block {outside[0]}: this tower has blocks 0 to {blocks - 1}")
