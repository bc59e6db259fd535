"""Text features that depend on no picture: of hard templates, and soft ones kept between pictures.

Shapes: T templates, G groups, C classes, D features.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch.nn import functional as F

from .prompts import hard_plan
from .text_encoder import TextEncoder


@torch.no_grad()
def hard_features(encoder: TextEncoder, templates: Sequence[str], classnames: Sequence[str]) -> torch.Tensor:
    """h_tc: normalised features of every template filled with every class name; T x C x D.

    Raises ValueError for a template without `{}` and for a sentence longer than CLIP's context.
    """
    features_TCD = encoder(hard_plan(templates, classnames, encoder.context_length))
    return F.normalize(features_TCD.float(), dim=-1).to(features_TCD.dtype)


def group_means(features_TCD: torch.Tensor, groups: Sequence[Sequence[str]]) -> torch.Tensor:
    """p_gc: normalised mean over each group's templates, which lie one group after the other in T; G x C x D."""
    means = [part.mean(0) for part in features_TCD.split([len(group) for group in groups])]
    return F.normalize(torch.stack(means), dim=-1)


def check_groups(groups: Sequence[Sequence[str]]) -> None:
    """Raises ValueError unless `groups` is a list of non-empty lists of templates."""
    if not groups or any(isinstance(group, str) or not group for group in groups):
        raise ValueError(f"template groups must be a list of non-empty lists of templates, but are {list(groups)!r}")


class FeatureCache:
    """Keeps what a function of some tensors returned, until one of them changes.

    A change is seen in the tensor's identity and in torch's count of in-place changes, and for `learned` tensors, which
    are small, in the values themselves, since `.data` is changed uncounted.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._value: torch.Tensor | None = None
        self._stamp: tuple = ()
        self._values = torch.empty(0)

    def get(
        self, compute: Callable[[], torch.Tensor], others: Iterable[torch.Tensor], learned: Iterable[torch.Tensor]
    ) -> torch.Tensor:
        learned = [p.detach() for p in learned]
        stamp = tuple((p.data_ptr(), p._version, p.dtype) for p in (*others, *learned))
        values = torch.cat([p.flatten() for p in learned])  # compared in one go: on a GPU each comparison would wait
        if self._value is None or stamp != self._stamp or not torch.equal(values, self._values):
            self._value, self._stamp, self._values = compute(), stamp, values
        return self._value
