"""Accuracy, error rate and macro F1 over a whole set."""

import os
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from dassl.utils import Registry, check_availability
from yacs.config import CfgNode

EVALUATOR_REGISTRY = Registry("EVALUATOR")


class EvaluatorBase:
    """What an evaluator offers: reset(), process(scores, labels) per batch, evaluate() at the end."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Keeps labels and predictions; metrics are in percent."""

    def __init__(self, cfg: CfgNode, lab2cname: dict[int, str] | None = None, **kwargs: Any) -> None:
        super().__init__(cfg)
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ValueError("TEST.PER_CLASS_RESULT needs class names")
        self._lab2cname = lab2cname or {}
        self.reset()

    def reset(self) -> None:
        self._y_true: list[int] = []
        self._y_pred: list[int] = []

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        """mo: (B, C) scores; gt: (B,) labels."""
        self._y_true += gt.tolist()
        self._y_pred += mo.argmax(1).tolist()

    def evaluate(self) -> "OrderedDict[str, float]":
        """Prints Dassl's result block and returns accuracy, error_rate and macro_f1, accuracy first."""
        from sklearn.metrics import confusion_matrix, f1_score  # slow to import, needed once

        truth, guess = np.array(self._y_true), np.array(self._y_pred)
        correct = int((truth == guess).sum())
        accuracy = 100.0 * correct / len(truth)
        macro_f1 = 100.0 * f1_score(truth, guess, average="macro", labels=np.unique(truth))
        results = OrderedDict(accuracy=accuracy, error_rate=100.0 - accuracy, macro_f1=float(macro_f1))
        print(
            f"=> result\n* total: {len(truth):,}\n* correct: {correct:,}\n* accuracy: {accuracy:.1f}%\n"
            f"* error: {100.0 - accuracy:.1f}%\n* macro_f1: {macro_f1:.1f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._print_per_class(truth, guess)
        if self.cfg.TEST.COMPUTE_CMAT:
            path = os.path.join(self.cfg.OUTPUT_DIR, "cmat.pt")
            torch.save(confusion_matrix(truth, guess, normalize="true"), path)
            print(f"Confusion matrix is saved to {path}")
        return results

    def _print_per_class(self, truth: np.ndarray, guess: np.ndarray) -> float:
        print("=> per-class result")
        accuracies = []
        for label in np.unique(truth):
            hit = guess[truth == label] == label
            accuracies.append(100.0 * float(hit.mean()))
            print(
                f"* class: {label} ({self._lab2cname[int(label)]})\ttotal: {len(hit):,}\t"
                f"correct: {int(hit.sum()):,}\tacc: {accuracies[-1]:.1f}%"
            )
        print(f"* average: {np.mean(accuracies):.1f}%")
        return float(np.mean(accuracies))


def build_evaluator(cfg: CfgNode, **kwargs: Any) -> EvaluatorBase:
    """The evaluator that cfg.TEST.EVALUATOR names."""
    check_availability(cfg.TEST.EVALUATOR, EVALUATOR_REGISTRY.registered_names())
    if cfg.VERBOSE:
        print(f"Loading evaluator: {cfg.TEST.EVALUATOR}")
    return EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)(cfg, **kwargs)
