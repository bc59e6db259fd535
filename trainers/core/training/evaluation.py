"""Evaluating a model on a set of pictures.

Shapes: B pictures, C classes.
"""

import itertools
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..ranks.collectives import this_rank
from ..runs.confusion import counted
from ..runs.mistakes import MOST
from ..runs.results import Validated
from .calibration import calibration_error, fitted_temperature, rejection_threshold

Parse = Callable[[Any], tuple[torch.Tensor, torch.Tensor]]
Seen = list[tuple[torch.Tensor, torch.Tensor]]  # of each batch: logits (B x C) and labels (B), on the CPU
AT_A_TIME = 16  # batches whose logits are fetched together, since each time the host waits for the device


class Logits:
    """Logits of batches as they are computed, and on the CPU, with labels, in `seen`; fetch() when the last has come.

    Raises FloatingPointError, naming the first tensor that is not finite: NaN would count as the first class.
    """

    def __init__(self, model: nn.Module, parse: Parse, logits_of: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._model, self._parse, self._logits_of = model, parse, logits_of
        self._waiting: list[tuple[torch.Tensor, torch.Tensor, Any]] = []  # on the device; the pictures' paths
        self.seen: Seen = []
        # of all ranks, on the first
        self.confusion: Counter[tuple[int, int]] = Counter()
        self.mistakes: list[tuple[int, int, int, float, float]] = []  # as mistakes_in gives them

    def of(self, batch: Any) -> None:
        images, labels_B = self._parse(batch)
        paths = batch.get("impath") if isinstance(batch, dict) else None
        self._waiting.append((self._logits_of(images), labels_B, paths))
        if len(self._waiting) == AT_A_TIME:
            self.fetch()

    def fetch(self) -> None:
        if not self._waiting:
            return
        logits, labels, paths = zip(*self._waiting, strict=True)
        self._waiting = []
        sizes = [len(labels_B) for labels_B in labels]
        on_cpu = [torch.cat(part).cpu().split(sizes) for part in (logits, labels)]
        for logits_BC, labels_B, own in zip(*on_cpu, paths, strict=True):
            if not logits_BC.isfinite().all():
                raise FloatingPointError(not_finite(self._model, own, logits_BC))
            if this_rank().several:  # which pickles a view's whole memory
                logits_BC, labels_B = logits_BC.clone(), labels_B.clone()
            self.seen.append((logits_BC, labels_B))


def evaluate(
    batches: Iterable[Any],
    rounds: int,
    logits: Logits,
    evaluator: Any,
    after_round: Callable[[], None],
    joint: bool = False,
) -> dict[str, float]:
    """Dassl's metrics over `batches`, with the exact counts "total" and "correct" and the calibration error "ece".

    joint: with the accuracies of base and of new classes, too.

    With several ranks, each has its own batches, at most `rounds`. All ranks call after_round() after each round. Rank
    0 combines the results.
    """
    evaluator.reset()
    ranks = this_rank()
    # scripts/run.py passes the bar on to its own terminal, and says so
    shown = ranks.first and (sys.stderr.isatty() or "MOCOOP_BARS" in os.environ)
    left = iter(tqdm(batches, desc="Evaluating", leave=False, disable=not shown, mininterval=1.0))
    for _ in range(rounds):
        batch = next(left, None)
        if batch is not None:
            logits.of(batch)
        after_round()
    next(left, None)  # ends the bar
    logits.fetch()
    seen = in_order(logits.seen)
    if not ranks.first:
        return ranks.broadcast({})
    for logits_BC, labels_B in seen:
        evaluator.process(logits_BC, labels_B)
    logits_NC, labels_N = (torch.cat(part) for part in zip(*seen, strict=True))
    logits.confusion = counted(labels_N.tolist(), logits_NC.argmax(1).tolist())
    logits.mistakes = mistakes_in(logits_NC, labels_N)
    counts: dict[str, float] = {"total": len(labels_N), "correct": int((logits_NC.argmax(1) == labels_N).sum())}
    ties = int(((logits_NC == logits_NC.max(1, keepdim=True).values).sum(1) > 1).sum())
    if ties:
        print(
            f"Note: {ties} of {len(labels_N)} pictures have more than one likeliest class; the first of them was taken"
        )
        counts["ties"] = ties
    ece = calibration_error(logits_NC.float(), labels_N)
    found = dict(evaluator.evaluate()) | counts | {"ece": round(ece, 4)}
    if joint:
        found |= accuracies_of_halves(logits_NC.argmax(1), labels_N, logits_NC.shape[1])
    return ranks.broadcast(found)


def mistakes_in(logits_NC: torch.Tensor, labels_N: torch.Tensor) -> list[tuple[int, int, int, float, float]]:
    """The pictures taken for another class, surest first, at most mistakes.MOST: number of the picture, class, predicted
    class, probability of that, probability of the class."""
    predicted_N = logits_NC.argmax(1)
    wrong_M = (predicted_N != labels_N).nonzero()[:, 0]
    probability_MC = logits_NC[wrong_M].float().softmax(1)
    surest_K = probability_MC.max(1).values.argsort(descending=True, stable=True)[:MOST]
    number_K = wrong_M[surest_K]
    label_K, predicted_K, probability_KC = labels_N[number_K], predicted_N[number_K], probability_MC[surest_K]
    given = (probability_KC.gather(1, class_K[:, None])[:, 0] for class_K in (predicted_K, label_K))
    columns = [column.tolist() for column in (number_K, label_K, predicted_K, *given)]
    return list(zip(*columns, strict=True))


def accuracies_of_halves(predicted_N: torch.Tensor, labels_N: torch.Tensor, n_classes: int) -> dict[str, float]:
    """Accuracies of base and of new classes in percent, all classes being candidates, as in generalised zero-shot
    learning: the mean over a half's classes, those without a picture left out. Prints them.

    The base classes are the first ceil(C / 2).
    """
    pictures_C = labels_N.bincount(minlength=n_classes)
    right_C = labels_N[predicted_N == labels_N].bincount(minlength=n_classes)
    half = math.ceil(n_classes / 2)
    found = {}
    for name, part in (("base", slice(half)), ("new", slice(half, None))):
        seen = pictures_C[part] > 0
        found[f"{name}_accuracy"] = float(100 * (right_C[part][seen].double() / pictures_C[part][seen]).mean())
        print(f"* {name} classes among all, mean over classes: {found[f'{name}_accuracy']:.2f}%")
    return found


def validated(batches: Iterable[Any], logits: Logits) -> Validated:
    """What the pictures of `batches`, a validation split, say: the temperature that fits them best, and below which
    confidence a picture is better rejected."""
    for batch in batches:
        logits.of(batch)
    logits.fetch()
    seen = in_order(logits.seen)
    if not this_rank().first:
        return this_rank().broadcast(Validated())
    logits_NC, labels_N = (torch.cat(part) for part in zip(*seen, strict=True))
    temperature = round(fitted_temperature(logits_NC.float(), labels_N), 4)
    below = [rejection_threshold(logits_NC.float(), labels_N, t) for t in (1.0, temperature)]
    return this_rank().broadcast(Validated(temperature, len(labels_N), *below))


def in_order(own: Seen) -> Seen:
    """All ranks' batches for rank 0, in the order in which one process has them; each rank has every W-th."""
    by_rank = this_rank().collect(own)
    in_turns = itertools.zip_longest(*by_rank)
    return [batch for turn in in_turns for batch in turn if batch is not None]


def not_finite(model: nn.Module, paths: Sequence[str] | None, logits_BC: torch.Tensor) -> str:
    """Where the first number that is not finite stands, and what to do."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        # masks are meant to hold -inf
        if tensor.is_floating_point() and not tensor.isfinite().all() and "mask" not in name and "causal" not in name:
            return f'"{name}" holds numbers that are not finite: the backbone or the checkpoint is damaged'
    row = int((~logits_BC.isfinite()).any(1).nonzero()[0])
    picture = paths[row] if paths else f"number {row} of the batch"
    return f"the logits of picture {picture} are not finite, though all weights are: use PREC fp32 or bf16"
