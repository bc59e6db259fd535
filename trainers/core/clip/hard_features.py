"""Text features of hard templates. They depend on no picture and on no trainable tensor.

Shapes: T templates, G groups, C classes, D features.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from .backbones import Vocabulary
from .precision import normalized
from .prompts import hard_plan
from .text_tower import TextEncoder


@torch.no_grad()
def hard_features(
    encoder: TextEncoder,
    templates: Sequence[str],
    classnames: Sequence[str],
    vocabulary: Vocabulary,
    unit: bool = True,
) -> torch.Tensor:
    """h_tc: features of every template filled with every class name, normalised unless `unit` is False; T x C x D.

    Raises ValueError for a template without `{}` and for a sentence longer than CLIP's context.
    """

    def encoded() -> torch.Tensor:
        features_TCD = encoder(hard_plan(templates, classnames, vocabulary).to(encoder.device))
        return normalized(features_TCD).to(features_TCD.dtype) if unit else features_TCD

    what = "hard features" if unit else "hard features as they are"
    return encoder.remember((what, list(templates), list(classnames)), encoded)


def group_means(features_TCD: torch.Tensor, groups: Sequence[Sequence[str]]) -> torch.Tensor:
    """p_gc: normalised mean over each group's templates, which lie one group after the other in T; G x C x D."""
    means = [part.mean(0) for part in features_TCD.split([len(group) for group in groups])]
    return F.normalize(torch.stack(means), dim=-1)


def check_groups(groups: Sequence[Sequence[str]]) -> None:
    """Raises ValueError unless `groups` is a list of non-empty lists of templates."""
    if not groups or any(isinstance(group, str) or not group for group in groups):
        raise ValueError(f"template groups must be a list of non-empty lists of templates, but are {list(groups)!r}")
