"""The optimiser and its schedule: Dassl's, and what Dassl has no setting for."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from dassl.optim import build_lr_scheduler, build_optimizer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, SequentialLR
from yacs.config import CfgNode


def optimiser_and_schedule(
    optim: CfgNode, groups: list[dict], steps_per_epoch: int, restart: int = 0
) -> tuple[Optimizer, Any]:
    """For parameters in `groups`. optim: the settings OPTIM.*; with SCHEDULE "step" the schedule moves at each step.
    restart: steps, or epochs, after which it begins anew; 0: never."""
    optimiser = build_optimizer(None, optim, param_groups=groups)
    for group in optimiser.param_groups:
        if "eps" in group and optim.NAME != "rmsprop":
            group["eps"] = optim.EPS
    if optim.SCHEDULE == "epoch":
        return optimiser, Restarted(optimiser, optim, restart) if restart else build_lr_scheduler(optimiser, optim)
    steps = optim.MAX_EPOCH * steps_per_epoch
    if not 0 < restart < steps:
        return optimiser, CosineAnnealingLR(optimiser, steps, optim.LR_MIN)
    parts: list[Any] = [CosineAnnealingLR(optimiser, count, optim.LR_MIN) for count in (restart, steps - restart)]
    return optimiser, SequentialLR(optimiser, parts, [restart])


@contextlib.contextmanager
def before_any_step() -> Iterator[None]:
    """Inside, a schedule may move though its optimiser has taken no step yet, of which torch would warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        yield


class Restarted:
    """Dassl's schedule for so many epochs, and then a second one, warm-up and all, for the rest."""

    def __init__(self, optimiser: Optimizer, optim: CfgNode, epochs: int) -> None:
        self._optimiser, self._optim, self._left = optimiser, optim, epochs
        self._later = optim.MAX_EPOCH - epochs
        self._rates = [group["lr"] for group in optimiser.param_groups]
        self._schedule = self._of(min(epochs, optim.MAX_EPOCH))

    def _of(self, epochs: int) -> Any:
        optim = self._optim.clone()
        optim.defrost()
        optim.MAX_EPOCH = epochs
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = group["initial_lr"] = rate
        return build_lr_scheduler(self._optimiser, optim)

    def step(self) -> None:
        self._left -= 1
        if self._left == 0 and self._later > 0:
            self._schedule = self._of(self._later)
        else:
            self._schedule.step()
