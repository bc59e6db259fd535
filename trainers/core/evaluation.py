"""Evaluating a model on a set of pictures.

Shapes: B pictures, C classes.
"""

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from .calibration import calibration_error, fitted_temperature


def evaluate(
    batches: Iterable[Any],
    parse: Callable[[Any], tuple[torch.Tensor, torch.Tensor]],
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    evaluator: Any,
    model: nn.Module,
    after_batch: Callable[[], None],
) -> dict[str, float]:
    """Dassl's metrics over `batches`, with the exact counts "total" and "correct" and the calibration error "ece".

    Raises FloatingPointError, naming the first tensor that is not finite: NaN would count as the first class.
    """
    evaluator.reset()
    total = correct = 0
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    # scripts/run.py passes the bar on to its own terminal, and says so
    shown = sys.stderr.isatty() or "MOCOOP_BARS" in os.environ
    for batch in tqdm(batches, desc="Evaluating", leave=False, disable=not shown, mininterval=1.0):
        images, labels = parse(batch)
        logits_BC = logits_of(images)
        if not logits_BC.isfinite().all():
            raise FloatingPointError(not_finite(model, batch, logits_BC))
        evaluator.process(logits_BC, labels)
        total += len(labels)
        correct += int((logits_BC.argmax(1) == labels).sum())
        seen.append((logits_BC.float().cpu(), labels.cpu()))
        after_batch()
    ece = calibration_error(torch.cat([logits for logits, _ in seen]), torch.cat([labels for _, labels in seen]))
    return dict(evaluator.evaluate()) | {"total": total, "correct": correct, "ece": round(ece, 4)}


def temperature_of(
    batches: Iterable[Any],
    parse: Callable[[Any], tuple[torch.Tensor, torch.Tensor]],
    logits_of: Callable[[torch.Tensor], torch.Tensor],
) -> float:
    """The temperature that fits the pictures of `batches`, a validation split, best."""
    seen = [(logits_of(images).float().cpu(), labels.cpu()) for images, labels in map(parse, batches)]
    return fitted_temperature(torch.cat([logits for logits, _ in seen]), torch.cat([labels for _, labels in seen]))


def not_finite(model: nn.Module, batch: Any, logits_BC: torch.Tensor) -> str:
    """Where the first number that is not finite stands, and what to do."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        # masks are meant to hold -inf
        if tensor.is_floating_point() and not tensor.isfinite().all() and "mask" not in name and "causal" not in name:
            return f'"{name}" holds numbers that are not finite: the backbone or the checkpoint is damaged'
    row = int((~logits_BC.isfinite()).any(1).nonzero()[0])
    path = batch["impath"][row] if isinstance(batch, dict) and "impath" in batch else f"number {row} of the batch"
    return f"the logits of picture {path} are not finite, though all weights are: use PREC fp32 or bf16"
