"""PLOT++: several prompts for each class and picture, matched by optimal transport (Chen et al., ICLR 2023, arXiv
2210.01253, and its repository's second version).

Shapes: B pictures, C classes, N text prompts, M visual prompts, K learned tokens of a text prompt, W width of a tower,
D features.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone
from ..core.clip.doors import VisualPrompts
from ..core.clip.exportable import Exportable
from ..core.clip.precision import in_full_precision
from ..core.clip.prompts import Context, context_plan, slot, tokenize_names
from ..core.clip.shared_context import ClassTextCLIP, check_depth
from ..core.clip.staged import StagedCLIP
from ..core.clip.visual_tower import encode_pictures
from .options import PlotModelOptions, PlotOptions

ROUNDS = 100


class PlotCLIP(StagedCLIP, ClassTextCLIP):
    """CLIP with N text prompts and M visual prompts, whose logits are optimal transport between their features.

    phrases: N of them, what the text prompts start from. options: those of PlotModelOptions. Learned: ctx, N x K x W, in
    the second stage alone, and ctx_vision, M x tokens x W. In the first stage, the product of mean features is added to the
    logits. Raises ValueError for a tower without a door for prompts.
    """

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        phrases: Sequence[str],
        *,
        text_encoder: str = "fast",
        text_chunk: int = 0,
        text_memory: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(clip_model, False, text_encoder, text_chunk, text_memory)
        self.options, b = PlotModelOptions(**options), self.backbone
        check_depth("N_VISION", 1, b.visual_blocks)
        K = len(phrases[0].split())
        names, contexts, filled, starts = tokenize_names(classnames, self.vocabulary), [], [], []
        for n, phrase in enumerate(phrases):
            ids = self.vocabulary.encode(phrase)
            lost = max(0, K - len(ids))  # a phrase that is too short takes EOT and loses the names' first tokens
            starts.append((ids + self.vocabulary.eot * lost)[:K])
            contexts.append(Context([slot(n * K + k) for k in range(K)], rest=ids[K:]))
            filled.append([replace(name, name=name.name[lost:]) for name in names])
        self.plan = context_plan(contexts, filled, self.vocabulary)
        with torch.no_grad():
            start_NKW = b.token_embedding(torch.tensor(starts, device=b.token_embedding.weight.device)).float()
        self.ctx = nn.Parameter(start_NKW.clone())
        drawn = torch.empty(self.options.n_vision, self.options.n_ctx_vision, b.visual_width)
        self.ctx_vision = nn.Parameter(nn.init.normal_(drawn, std=0.02))
        self.put_stage()

    def text_features(self) -> torch.Tensor:
        """As they are; N x C x D."""
        vectors_XW = self.ctx.flatten(0, 1)
        if self.in_second_stage:
            return self.text_encoder.of_all(self.plan, vectors_XW)
        with torch.no_grad():
            return self.text_encoder(self.plan, vectors_XW)

    def all_image_features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """As they are, for each visual prompt; M x B x D."""
        rows = (VisualPrompts({0: row}) for row in self.ctx_vision)
        return torch.stack([encode_pictures(self.backbone, images_BCHW, prompts=own) for own in rows])

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """s sum_mn T_mn <f_m, w_nc>, T the transport; in the first stage plus s <mean_m f_m, mean_n w_nc>; B x C."""
        text_NCD, image_MBD = self.cached_in_eval(self.text_features), self.all_image_features(images_BCHW)
        o = self.options
        return transported(image_MBD, text_NCD, self.logit_scale.exp(), o.eps, o.stop, not self.in_second_stage)

    def exportable(self) -> Exportable:
        raise ValueError(
            "PLOT++ cannot be exported, since a batch says how long its transport is computed: use predict.py or load_run"
        )

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "PlotCLIP":
        own = PlotOptions.of(trained.options).keywords(PlotModelOptions)
        return cls(backbone, classnames, trained.identity["phrases"], **own)


@in_full_precision
def transported(
    image_MBD: torch.Tensor, text_NCD: torch.Tensor, scale: torch.Tensor, eps: float, stop: float, adds_means: bool
) -> torch.Tensor:
    """Logits of optimal transport between M features of a picture and N of a class, none of them normalised; B x C."""
    image_BD, text_CD = image_MBD.mean(0), text_NCD.mean(0)
    unit_MBD, unit_NCD = F.normalize(image_MBD, dim=-1), F.normalize(text_NCD, dim=-1)
    similarity_BCMN = torch.einsum("mbd,ncd->bcmn", unit_MBD, unit_NCD)
    with torch.no_grad():
        plan_BCMN = transport((similarity_BCMN - 1).div(eps).exp(), stop)
    logits_BC = scale * (plan_BCMN * similarity_BCMN).sum((-2, -1))
    return (
        logits_BC + scale * F.normalize(image_BD, dim=-1) @ F.normalize(text_CD, dim=-1).T if adds_means else logits_BC
    )


def transport(kernel_BCMN: torch.Tensor, stop: float) -> torch.Tensor:
    """Sinkhorn's plan between uniform marginals; B x C x M x N. It stops for all pictures at once, so that a picture's plan
    depends a little on those beside it."""
    *rest, M, N = kernel_BCMN.shape
    row, column = kernel_BCMN.new_ones(*rest, M), kernel_BCMN.new_ones(*rest, N)
    for _ in range(ROUNDS):
        before = row
        row = 1 / M / (kernel_BCMN @ column[..., None])[..., 0]
        column = 1 / N / (kernel_BCMN.mT @ row[..., None])[..., 0]
        if stop and float((row - before).abs().mean()) < stop:
            break
    return row[..., None] * column[..., None, :] * kernel_BCMN
