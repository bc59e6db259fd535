"""DPL: differentiable prompt learning (Huang et al., IJCAI 2025, arXiv 2501.00457).

Each block's attention reads a context of its own beside its positions, as keys and values alone: x <- x + Attn(ln_1(x),
ln_1([x, ctx])). How long the context of each block is, 0 to 6, is searched for. In the search a block sums the attentions
with contexts of all lengths, weighted by softmax(alpha). alpha follows the loss of validation pictures, and the contexts
that of training pictures. Then the most probable length of each block is kept, and its context trained anew.

Shapes: B pictures, C classes, M vectors of a context, W width of a tower, D features, L positions of the text tower, N
lengths, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..core.clip.adapted import AdaptedCLIP, Trained
from ..core.clip.backbones import Backbone
from ..core.clip.doors import KeyValues
from ..core.clip.hard_features import hard_features
from ..core.clip.losses import divergence
from ..core.clip.precision import cosine_logits
from ..core.clip.prompts import PromptPlan, clean_classname, hard_plan, slot
from ..core.clip.shared_context import ClassTextCLIP, check_depth
from ..core.clip.staged import StagedCLIP
from ..core.clip.visual_tower import encode_pictures
from .options import DplModelOptions, DplOptions

SEARCHED_WITH = "a photo of a {}."
TOWERS = ("vision", "text")


class DplCLIP(StagedCLIP, ClassTextCLIP):
    """CLIP whose blocks read contexts: all lengths at once in the first stage, one length each in the second.

    template: what the search reads. templates: what the network found reads, the mean of their token embeddings, position
    by position, up to the end of the last of them. Both with one `{}`. options: those of DplModelOptions; with lengths,
    the second stage is the only one. Learned: contexts.<tower>.<block>.<length - 1>, length x W, and, by the search,
    alphas.<tower>, blocks x (1 + longest). Raises ValueError for lengths that do not fit the towers.
    """

    alphas: Any  # tower -> blocks x N
    contexts: Any  # tower -> block -> length - 1 -> length x W
    fixed_KW: torch.Tensor
    teacher_CD: torch.Tensor

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        template: str,
        templates: Sequence[str],
        *,
        distills: bool = False,
        text_encoder: str = "fast",
        text_chunk: int = 0,
        text_memory: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(clip_model, False, text_encoder, text_chunk, text_memory)
        self.options = o = DplModelOptions(**options)
        b = self.backbone
        check_depth("N_CTX_VISION", min(1, o.n_ctx_vision), b.visual_blocks)
        blocks = {"vision": b.visual_blocks, "text": b.text_layers}
        widths = {"vision": b.visual_width, "text": b.text_width}
        longest = {"vision": o.n_ctx_vision, "text": o.n_ctx_text}
        if not any(longest.values()):
            raise ValueError("N_CTX_TEXT and N_CTX_VISION are 0: give one of the towers contexts")
        self.alphas, self.contexts = nn.ParameterDict(), nn.ModuleDict()
        for tower, draw in zip(TOWERS, (torch.randn, torch.rand), strict=True):
            alphas = 1e-3 * torch.randn(blocks[tower], 1 + longest[tower])
            self.alphas[tower] = nn.Parameter(alphas, requires_grad=False)
            self.contexts[tower] = nn.ModuleList(
                nn.ParameterList(nn.Parameter(draw(length + 1, widths[tower])) for length in range(longest[tower]))
                for _ in range(blocks[tower])
            )
        self.search_plan = hard_plan([template], classnames, self.vocabulary)
        self.plan, fixed_KW = mean_embeddings(templates, classnames, b)
        self.register_buffer("fixed_KW", fixed_KW, persistent=False)
        self.distills = distills
        if distills:
            hard_TCD = hard_features(self.text_encoder, templates[-1:], classnames, self.vocabulary)
            self.register_buffer("teacher_CD", hard_TCD[0], persistent=False)
        self.put_stage()
        if o.lengths:
            self._take(o.lengths, blocks, longest)

    def _take(self, lengths: Sequence[Sequence[int]], blocks: dict[str, int], longest: dict[str, int]) -> None:
        """Lengths found before take the place of a search."""
        if not any(length for own in lengths for length in own):
            raise ValueError("LENGTHS has no length above 0, so nothing would be trained: that is zero-shot CLIP")
        if len(lengths) != 2:
            raise ValueError(f"LENGTHS has {len(lengths)} lists: use two, of the picture tower and of the text tower")
        for tower, own in zip(TOWERS, lengths, strict=True):
            if len(own) != blocks[tower]:
                raise ValueError(
                    f"LENGTHS has {len(own)} blocks of the {tower} tower, but this one has {blocks[tower]}: use those "
                    "that were found for this backbone"
                )
            if not all(0 <= length <= longest[tower] for length in own):
                raise ValueError(f"LENGTHS has lengths of {min(own)} to {max(own)}: use 0 to {longest[tower]}")
            self.alphas[tower].data = F.one_hot(torch.tensor(own), 1 + longest[tower]).float()
        self.begin_second_stage()

    # --- which network ------------------------------------------------------------------------------------------------

    def lengths(self) -> dict[str, list[int]]:
        """The most probable length of each block, by tower."""
        return {tower: alphas.argmax(1).tolist() for tower, alphas in self.alphas.items()}

    def probabilities(self) -> dict[str, list[list[float]]]:
        """softmax(alpha) of each block, by tower."""
        return {tower: alphas.softmax(1).tolist() for tower, alphas in self.alphas.items()}

    @torch.no_grad()
    def begin_second_stage(self) -> None:
        """The contexts of the network found are drawn anew, with deviation 0.02."""
        super().begin_second_stage()
        for rows in self.trainable().values():  # drawn on the CPU, so a seed means the same everywhere
            rows.copy_(nn.init.normal_(torch.empty(rows.shape, dtype=rows.dtype), std=0.02))

    def weights_changed(self) -> None:
        super().weights_changed()
        self._found = self.lengths() if self.in_second_stage else {}

    def trainable(self) -> dict[str, nn.Parameter]:
        """In the second stage, those of the network found."""
        if not self.in_second_stage:
            return super().trainable()
        return {
            f"contexts.{tower}.{block}.{length - 1}": self.contexts[tower][block][length - 1]
            for tower in TOWERS for block, length in enumerate(self._found[tower]) if length
        }  # fmt: skip

    def checkpoint_tensors(self) -> dict[str, torch.Tensor]:
        """All of both stages."""
        alphas = {f"alphas.{tower}": alphas for tower, alphas in self.alphas.items()}
        return dict(AdaptedCLIP.trainable(self)) | alphas | {"stage": self.stage}

    # --- what it computes ---------------------------------------------------------------------------------------------

    def beside(self, tower: str) -> KeyValues:
        """The contexts that the blocks of a tower read."""
        contexts = self.contexts[tower]
        if self.in_second_stage:
            chosen = enumerate(self._found[tower])
            return KeyValues({block: contexts[block][length - 1] for block, length in chosen if length})
        if not contexts or not len(contexts[0]):
            return KeyValues({})
        weights = self.alphas[tower].softmax(1)
        lengths = tuple(range(len(contexts[0]) + 1))
        rows = {block: torch.cat(list(own)) for block, own in enumerate(contexts)}
        return KeyValues(rows, lengths, dict(enumerate(weights)))

    def visual_prompts(self) -> KeyValues:
        return self.beside("vision")

    def text_features(self) -> torch.Tensor:
        """Normalised; C x D."""
        plan, fixed_KW = (self.plan, self.fixed_KW) if self.in_second_stage else (self.search_plan, None)
        return F.normalize(self.text_encoder.of_all(plan, fixed_KW, self.beside("text"))[0], dim=-1)

    def losses(self, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> dict[str, torch.Tensor]:
        """Unweighted scalars, and "logits_BC". "cls": cross-entropy; "distill", where a network found distils: its
        divergence from zero-shot CLIP (core/clip/losses.py), as the authors' code divides it."""
        logits_BC = self(images_BCHW)
        losses = {"cls": F.cross_entropy(logits_BC, labels_B), "logits_BC": logits_BC}
        if self.distills and self.in_second_stage:
            with torch.no_grad():
                teacher_BD = F.normalize(encode_pictures(self.backbone, images_BCHW), dim=-1)
                teacher_BC = cosine_logits(teacher_BD, self.teacher_CD, self.logit_scale.exp())
            losses["distill"] = divergence(teacher_BC, logits_BC)
        return losses

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "DplCLIP":
        search, *last = trained.identity["templates"]
        return cls(backbone, classnames, search, last, **DplOptions.of(trained.options).keywords(DplModelOptions))


@torch.no_grad()
def mean_embeddings(
    templates: Sequence[str], classnames: Sequence[str], backbone: Backbone
) -> tuple[PromptPlan, torch.Tensor]:
    """Prompts whose vectors are the means of the token embeddings of all templates at the same position, padding included,
    up to where the last template ends; and these vectors, K x W.

    Raises ValueError for a prompt longer than the context.
    """
    v = backbone.vocabulary
    tails, means, count = [], [], 0
    for name in map(clean_classname, classnames):
        sentences = [v.sos + v.encode(template.replace("{}", name)) + v.eot for template in templates]
        end, longest = len(sentences[-1]), max(map(len, sentences))
        if longest > v.context_length:
            raise ValueError(f'a prompt of "{name}" has {longest} tokens, but CLIP reads at most {v.context_length}')
        tokens_TL = torch.tensor([(s + [v.pad] * longest)[:end] for s in sentences])
        table = backbone.token_embedding.weight
        first = len(v.sos)
        means.append(table[tokens_TL.to(table.device)].mean(0)[first:])
        tails.append([slot(count + i) for i in range(end - first)])
        count += end - first
    return PromptPlan([v.sos], [tails], v.context_length, v.pad), torch.cat(means)
