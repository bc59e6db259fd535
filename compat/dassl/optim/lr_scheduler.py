"""Warm-up, then step or cosine decay, counted in epochs."""

from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR
from yacs.config import CfgNode

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]


class WarmupScheduler(LRScheduler):
    """`warmup_epoch` epochs at a constant or linearly growing rate, then `successor` from its own first epoch.

    Unlike a pickled pair of schedulers, its state holds numbers only, so that resuming keeps driving the live optimiser.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        warmup_type: str,
        first_lr: float,
    ) -> None:
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        self.warmup_type = warmup_type
        self.first_lr = first_lr
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        if self.last_epoch >= self.warmup_epoch:
            return self.successor.get_last_lr()
        if self.warmup_type == "constant" or self.last_epoch == 0:
            return [self.first_lr for _ in self.base_lrs]
        return [base * self.last_epoch / self.warmup_epoch for base in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()
        else:
            super().step(epoch)

    def state_dict(self) -> dict[str, Any]:
        own = {k: v for k, v in super().state_dict().items() if k != "successor" and not callable(v)}
        return own | {"successor": {k: v for k, v in self.successor.state_dict().items() if not callable(v)}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = dict(state_dict)
        self.successor.load_state_dict(own.pop("successor"))
        super().load_state_dict(own)


def build_lr_scheduler(optimizer: torch.optim.Optimizer, optim_cfg: CfgNode) -> LRScheduler:
    """The schedule that `optim_cfg` describes; step it once per epoch. Raises ValueError for unknown names."""
    c = optim_cfg
    if c.LR_SCHEDULER not in AVAI_SCHEDS:
        raise ValueError(f"OPTIM.LR_SCHEDULER must be one of {AVAI_SCHEDS}, but is {c.LR_SCHEDULER}")
    scheduler: LRScheduler
    if c.LR_SCHEDULER == "single_step":
        size = c.STEPSIZE[-1] if isinstance(c.STEPSIZE, list | tuple) else c.STEPSIZE
        if not isinstance(size, int):
            raise TypeError(f"OPTIM.STEPSIZE must be whole epochs, but is {size!r}")
        scheduler = StepLR(optimizer, step_size=size if size > 0 else c.MAX_EPOCH, gamma=c.GAMMA)
    elif c.LR_SCHEDULER == "multi_step":
        if not isinstance(c.STEPSIZE, list | tuple):
            raise TypeError(f"OPTIM.STEPSIZE must be a list of epochs, but is {c.STEPSIZE!r}")
        scheduler = MultiStepLR(optimizer, milestones=list(c.STEPSIZE), gamma=c.GAMMA)
    else:
        scheduler = CosineAnnealingLR(optimizer, T_max=c.MAX_EPOCH)
    if c.WARMUP_EPOCH <= 0:
        return scheduler
    if c.WARMUP_TYPE not in ("constant", "linear"):
        raise ValueError(f'OPTIM.WARMUP_TYPE must be "constant" or "linear", but is {c.WARMUP_TYPE!r}')
    if not c.WARMUP_RECOUNT:
        scheduler.last_epoch = c.WARMUP_EPOCH
    first = c.WARMUP_CONS_LR if c.WARMUP_TYPE == "constant" else c.WARMUP_MIN_LR
    return WarmupScheduler(optimizer, scheduler, c.WARMUP_EPOCH, c.WARMUP_TYPE, first)
