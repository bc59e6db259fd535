"""The optimiser and its schedule: Dassl's, and what Dassl has no setting for."""

from typing import Any

from dassl.optim import build_lr_scheduler, build_optimizer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, SequentialLR
from yacs.config import CfgNode


def optimiser_and_schedule(
    optim: CfgNode, groups: list[dict], steps_per_epoch: int, restart: int = 0
) -> tuple[Optimizer, Any]:
    """For parameters in `groups`. optim: the settings OPTIM.*; with SCHEDULE "step" the schedule moves at each step, and a
    second cosine begins after `restart` of them."""
    optimiser = build_optimizer(None, optim, param_groups=groups)
    for group in optimiser.param_groups:
        if "eps" in group and optim.NAME != "rmsprop":
            group["eps"] = optim.EPS
    if optim.SCHEDULE == "epoch":
        return optimiser, build_lr_scheduler(optimiser, optim)
    steps = optim.MAX_EPOCH * steps_per_epoch
    if not 0 < restart < steps:
        return optimiser, CosineAnnealingLR(optimiser, steps, optim.LR_MIN)
    parts: list[Any] = [CosineAnnealingLR(optimiser, count, optim.LR_MIN) for count in (restart, steps - restart)]
    return optimiser, SequentialLR(optimiser, parts, [restart])
