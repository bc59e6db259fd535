"""Chooses a head's constants on pictures that it was not fitted to.

Shapes: N pictures, C classes, D features, K candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

PARTS = 4  # of the shots, where these have to do


@dataclass(frozen=True)
class Labelled:
    """Pictures by their features, which are normalised, N x D, and labels, N. where: what they are, for people."""

    features_ND: torch.Tensor
    labels_N: torch.Tensor
    where: str = ""


def parts_of(labels_N: torch.Tensor) -> list[torch.Tensor]:
    """Which pictures each part holds out, N each: every class's first, fifth ... picture, then its second ..., in up to
    four parts. A class's only picture is never held out; no part is empty.
    """
    place_N = torch.empty_like(labels_N)
    count_N = torch.empty_like(labels_N)
    for label in labels_N.unique():
        own = (labels_N == label).nonzero().flatten()
        place_N[own], count_N[own] = torch.arange(len(own), device=labels_N.device), len(own)
    parts = [(place_N % PARTS == part) & (count_N > 1) for part in range(PARTS)]
    return [part for part in parts if part.any()]


Fit = Callable[[torch.Tensor], Any]  # which training pictures, N -> a head
Score = Callable[[Any, Labelled], torch.Tensor]  # a head, other pictures -> how many are right with each candidate, K


def right_of_each(
    fit: Fit, score: Score, shots: Labelled, held_out: Labelled | None
) -> tuple[torch.Tensor, int, str] | None:
    """How many pictures are right with each candidate, K; of how many; and what they are.

    On `held_out` with the head that is fitted to all shots; without it, on each part of the shots with the head fitted to
    the others. None where no class has a second picture.
    """
    trials: list[tuple[torch.Tensor, Labelled]] = list(_trials(shots, held_out))
    if not trials:
        return None
    right_K = sum(score(fit(kept_N), tested) for kept_N, tested in trials)
    assert isinstance(right_K, torch.Tensor)
    return right_K, sum(len(tested.labels_N) for _, tested in trials), trials[0][1].where


def _trials(shots: Labelled, held_out: Labelled | None) -> Iterator[tuple[torch.Tensor, Labelled]]:
    if held_out is not None:
        yield torch.ones_like(shots.labels_N, dtype=torch.bool), held_out
        return
    parts = parts_of(shots.labels_N)
    for part_N in parts:
        yield ~part_N, Labelled(shots.features_ND[part_N], shots.labels_N[part_N], f"the shots, in {len(parts)} parts")


def choose(
    what: str, candidates: Sequence[Any], fit: Fit, score: Score, shots: Labelled, held_out: Labelled | None, usual: Any
) -> Any:
    """The first of `candidates` with which most pictures are right, and says so; `usual` where nothing can be tried."""
    found = right_of_each(fit, score, shots, held_out)
    if found is None:
        print(f"{what} {usual}: one picture per class leaves none to choose on")
        return usual
    right_K, count, where = found
    best = candidates[int(right_K.argmax())]  # the first of the best
    print(f"{what} {best}, chosen on {where}: {100 * float(right_K.max()) / count:.1f}% right")
    return best
