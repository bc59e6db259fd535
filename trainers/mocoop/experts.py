"""What each expert of a mixture has in the picture tower: tokens before its blocks, or a low-rank change of its attention.

Shapes: G experts, N pictures, M prompt tokens, R rank, W width of the picture tower.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..core.clip.backbones import Backbone
from ..core.clip.doors import LowRank, VisualPrompts
from ..core.clip.shared_context import check_depth


class ExpertRows(nn.ParameterDict):
    """By block, G x M x W or G x R x 4W; empty where experts have text alone.

    tokens: how many before each of the first blocks, drawn with deviation 0.02. rank: of the changes, which start as none.
    Raises ValueError for both at once, and for a tower with fewer blocks, or without a door.
    """

    def __init__(self, backbone: Backbone, G: int, tokens: Sequence[int], rank: int) -> None:
        blocks, W = backbone.visual_blocks, backbone.visual_width
        if rank and tokens:
            raise ValueError(f"VISUAL_TOKENS is {list(tokens)} and VISUAL_RANK {rank}: use one of them")
        if tokens and not any(tokens):
            raise ValueError(f"VISUAL_TOKENS is {list(tokens)}, which gives experts nothing: leave it out")
        if rank:
            check_depth("VISUAL_RANK", 1, blocks)
            drawn = [F.pad(torch.randn(G, rank, W) * W**-0.5, (0, 3 * W)) for _ in range(blocks)]
        else:
            check_depth("VISUAL_TOKENS", len(tokens), blocks)
            drawn = [torch.randn(G, M, W) * 0.02 for M in tokens]
        super().__init__({str(block): nn.Parameter(rows) for block, rows in enumerate(drawn) if rows.numel()})
        self.door = LowRank if rank else VisualPrompts

    def of(self, experts_N: torch.Tensor | None = None) -> LowRank | VisualPrompts:
        """Those of each picture's expert, or of all experts."""
        return self.door({int(block): rows if experts_N is None else rows[experts_N] for block, rows in self.items()})
