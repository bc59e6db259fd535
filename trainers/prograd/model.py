"""ProGrad: CoOp whose steps never go against zero-shot CLIP (Zhu, Niu, Han, Wu, Zhang, ICCV 2023).

Shapes: B pictures, C classes, M context tokens, W width of the text tower, D features, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..core.clip.adapted import Trained
from ..core.clip.backbones import Backbone, Vocabulary
from ..core.clip.hard_features import hard_features
from ..core.clip.precision import cosine_logits
from ..core.clip.prompts import initial_context
from ..core.clip.shared_context import SharedContextCLIP
from .options import ProGradOptions


def start_words(template: str, n_ctx: int) -> list[str]:
    """As which the context can start: of "a photo of a {}." a, photo, of, a. Raises ValueError for more than n_ctx."""
    words = template.partition(" {}")[0].split(" ")
    if len(words) > n_ctx:
        raise ValueError(f'N_CTX is {n_ctx}, but "{" ".join(words)}" has {len(words)} words: use that many or more')
    return words


def aligned_context(
    token_embedding: nn.Embedding, vocabulary: Vocabulary, n_ctx: int, template: str
) -> tuple[torch.Tensor, list[int]]:
    """M x W zeros whose last vectors are the words before {} in `template`, a token a word as the authors' code counts; and
    the tokens that remain fixed. Raises ValueError where there are more words than n_ctx."""
    words = start_words(template, n_ctx)
    ids, count = vocabulary.encode(" ".join(words)), len(words)
    ctx = torch.zeros(n_ctx, token_embedding.weight.shape[1])
    first = torch.tensor(ids[:count], device=token_embedding.weight.device)
    ctx[n_ctx - count :] = token_embedding(first).detach().float().cpu()
    return ctx.to(token_embedding.weight.device), ids[count:]


class ProGradCLIP(SharedContextCLIP):
    """CLIP with one context of M tokens, beside zero-shot CLIP with one template.

    clip_model: a backbone or a CLIP of OpenAI's `clip`, used in place. classnames: C names, in label order. template: with
    one `{}`. options: those of ProGradOptions. text_encoder, text_chunk, text_memory: as in AdaptedCLIP. Learned: ctx.
    """

    from_features = True
    teacher_CD: torch.Tensor

    def __init__(
        self,
        clip_model: Any,
        classnames: Sequence[str],
        template: str,
        *,
        text_encoder: str = "fast",
        text_chunk: int = 0,
        text_memory: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(clip_model, False, text_encoder, text_chunk, text_memory)
        self.options = o = ProGradOptions(**options)
        table = self.backbone.token_embedding
        if o.from_template:
            ctx, rest = aligned_context(table, self.vocabulary, o.n_ctx, template)
        else:
            ctx, rest = initial_context(table, self.vocabulary, o.n_ctx, "")
        self.set_context(classnames, ctx, rest)
        hard_TCD = hard_features(self.text_encoder, [template], classnames, self.vocabulary)
        self.register_buffer("teacher_CD", hard_TCD[0], persistent=False)

    def losses(self, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> dict[str, torch.Tensor]:
        """Scalars "cls", cross-entropy, and "guide", -T^2 mean_b sum_c p0_bc log p_bc; and "logits_BC".

        Both predictions are at temperature T, p0 is zero-shot CLIP's; the guide has the gradient of KL(p0, p).
        """
        image_BD, T = self.image_features(images_BCHW), self.options.temperature
        scale = self.logit_scale.exp()
        logits_BC = cosine_logits(image_BD, self.text_features(), scale)
        teacher_BC = cosine_logits(image_BD, self.teacher_CD, scale)
        guide_B = -((teacher_BC / T).softmax(1) * (logits_BC / T).log_softmax(1)).sum(1) * T * T
        return {"cls": F.cross_entropy(logits_BC, labels_B), "guide": guide_B.mean(), "logits_BC": logits_BC}

    @classmethod
    def from_checkpoint(cls, backbone: Backbone, trained: Trained, classnames: Sequence[str]) -> "ProGradCLIP":
        options = ProGradOptions.of(trained.options)
        return cls(backbone, classnames, trained.identity["template"], **options.keywords(ProGradOptions))


def project(grad: torch.Tensor, guide: torch.Tensor, part: float) -> torch.Tensor:
    """g - part <g, b> b / |b|^2 where g and b, as vectors, point against each other, else g; b = 0 changes nothing."""
    unit = guide / torch.linalg.vector_norm(guide)
    along = (grad * unit).sum()
    return torch.where(along < 0, grad - part * along * unit, grad)
