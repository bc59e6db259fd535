"""Evaluating a model on a set of pictures.

Shapes: B pictures, C classes.
"""

import itertools
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from ..components.ranks import here
from .calibration import calibration_error, fitted_temperature

Seen = list[tuple[torch.Tensor, torch.Tensor, int]]  # of each batch: logits (B x C), labels (B), right answers


def evaluate(
    batches: Iterable[Any],
    rounds: int,
    parse: Callable[[Any], tuple[torch.Tensor, torch.Tensor]],
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    evaluator: Any,
    model: nn.Module,
    after_round: Callable[[], None],
) -> dict[str, float]:
    """Dassl's metrics over `batches`, with the exact counts "total" and "correct" and the calibration error "ece".

    Of several ranks each has its own batches, no more than `rounds`, after each of which all call after_round(); rank 0
    puts them together.
    Raises FloatingPointError, naming the first tensor that is not finite: NaN would count as the first class.
    """
    evaluator.reset()
    ranks = here()
    seen: Seen = []
    # scripts/run.py passes the bar on to its own terminal, and says so
    shown = ranks.first and (sys.stderr.isatty() or "MOCOOP_BARS" in os.environ)
    left = iter(tqdm(batches, desc="Evaluating", leave=False, disable=not shown, mininterval=1.0))
    for _ in range(rounds):
        batch = next(left, None)
        if batch is not None:
            images, labels = parse(batch)
            logits_BC = logits_of(images)
            if not logits_BC.isfinite().all():
                raise FloatingPointError(not_finite(model, batch, logits_BC))
            if not ranks.several:
                evaluator.process(logits_BC, labels)
            hits = int((logits_BC.argmax(1) == labels).sum())
            seen.append((logits_BC.float().cpu(), labels.cpu(), hits))
        after_round()
    next(left, None)  # ends the bar
    seen = in_order(seen)
    if not ranks.first:
        return ranks.hear({})
    if ranks.several:
        for logits_BC, labels, _ in seen:
            evaluator.process(logits_BC, labels)
    ece = calibration_error(torch.cat([logits for logits, _, _ in seen]), torch.cat([labels for _, labels, _ in seen]))
    counts = {"total": sum(len(labels) for _, labels, _ in seen), "correct": sum(hits for _, _, hits in seen)}
    return ranks.hear(dict(evaluator.evaluate()) | counts | {"ece": round(ece, 4)})


def temperature_of(
    batches: Iterable[Any],
    parse: Callable[[Any], tuple[torch.Tensor, torch.Tensor]],
    logits_of: Callable[[torch.Tensor], torch.Tensor],
) -> float:
    """The temperature that fits the pictures of `batches`, a validation split, best."""
    seen = in_order([(logits_of(images).float().cpu(), labels.cpu(), 0) for images, labels in map(parse, batches)])
    if not here().first:
        return here().hear(0.0)
    logits_NC, labels_N = torch.cat([logits for logits, _, _ in seen]), torch.cat([labels for _, labels, _ in seen])
    return here().hear(fitted_temperature(logits_NC, labels_N))


def in_order(own: Seen) -> Seen:
    """All ranks' batches for rank 0, in the order in which one process has them; each rank has every W-th."""
    by_rank = here().collect(own)
    in_turns = itertools.zip_longest(*by_rank)
    return [batch for turn in in_turns for batch in turn if batch is not None]


def not_finite(model: nn.Module, batch: Any, logits_BC: torch.Tensor) -> str:
    """Where the first number that is not finite stands, and what to do."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        # masks are meant to hold -inf
        if tensor.is_floating_point() and not tensor.isfinite().all() and "mask" not in name and "causal" not in name:
            return f'"{name}" holds numbers that are not finite: the backbone or the checkpoint is damaged'
    row = int((~logits_BC.isfinite()).any(1).nonzero()[0])
    path = batch["impath"][row] if isinstance(batch, dict) and "impath" in batch else f"number {row} of the batch"
    return f"the logits of picture {path} are not finite, though all weights are: use PREC fp32 or bf16"
