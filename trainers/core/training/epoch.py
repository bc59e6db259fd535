"""One pass over the training pictures: batches, losses, what is printed; begun anew or in the middle."""

import datetime
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from dassl.utils import AverageMeter, MetricMeter
from torch.utils.data import DataLoader

from ..loading.loaders import with_batches
from . import checkpoints

Losses = dict[str, float]


class Steps:
    """Takes the steps of one epoch.

    loader: the training pictures. take: one step, returning the losses to show. rate: the learning rate of the next.
    resume: the progress that `progress()` recorded when the epoch was left in the middle.
    """

    def __init__(self, loader: DataLoader, take: Callable[[Any], dict[str, torch.Tensor]], rate: Callable[[], float],
                 print_freq: int, resume: dict[str, Any] | None) -> None:  # fmt: skip
        self.loader, self.take, self.rate, self.print_freq = loader, take, rate, print_freq
        self.count = len(loader)
        self.losses, self.batch_time, self.data_time = MetricMeter(), AverageMeter(), AverageMeter()
        if resume:
            checkpoints.set_random_state(resume["random_at_epoch_start"])
        self._random_at_start = checkpoints.random_state()
        self.first = resume["batches_done"] if resume else 0
        self._batches = self._from(self.first)
        if resume:
            checkpoints.set_random_state(resume["random"])
            for name, (value, total, count) in resume["meters"].items():
                meter = self.losses.meters[name]
                meter.val, meter.sum, meter.count, meter.avg = value, total, count, total / count
        self._pending: list[tuple[float, dict[str, torch.Tensor]]] = []
        self.done = self.first

    def _from(self, first: int) -> Iterator[Any]:
        """The epoch's batches from `first` on, in the order drawn at its beginning."""
        if self.loader.generator is not None:
            torch.empty((), dtype=torch.int64).random_()  # as loaders without a generator of their own draw
        batches = iter(self.loader)
        if not first:
            return batches
        if self.loader.num_workers:
            for _ in range(first):
                next(batches)  # the workers' own generators have to move on
            return batches
        left = list(self.loader.batch_sampler or [])[first:]  # pictures are augmented here, whose state is restored
        return iter(with_batches(self.loader, left))

    def __iter__(self) -> Iterator[tuple[int, bool]]:
        """Takes one step after the other; yields its number, and whether it is one of those that are printed."""
        end = time.time()
        for number in range(self.first, self.count):
            batch = next(self._batches)
            self.data_time.update(time.time() - end)
            self._pending.append((self.rate(), self.take(batch)))
            self.batch_time.update(time.time() - end)
            self.done = number + 1
            yield number, (number + 1) % self.print_freq == 0 or self.count < self.print_freq
            end = time.time()

    def read(self) -> Iterator[tuple[int, float, Losses]]:
        """The losses of the steps since the last time, with the steps' numbers and rates; `losses` takes them when the
        caller has found them finite."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        # one wait for the device, however many they are
        rows = (
            torch.stack([value for _, summary in pending for value in summary.values()]).view(len(pending), -1).tolist()
        )
        for ago, (rate, summary), row in zip(reversed(range(len(pending))), pending, rows, strict=True):
            yield self.done - 1 - ago, rate, dict(zip(summary, row, strict=True))

    def line(self, epoch: int, epochs: int, lr: float) -> str:
        """Dassl's line of the log."""
        left = (epochs - epoch) * self.count - self.done
        t, d = self.batch_time, self.data_time
        return (
            f"epoch [{epoch + 1}/{epochs}] batch [{self.done}/{self.count}] "
            f"time {t.val:.3f} ({t.avg:.3f}) data {d.val:.3f} ({d.avg:.3f}) "
            f"{self.losses} lr {lr:.4e} eta {datetime.timedelta(seconds=int(t.avg * left))}"
        )

    def progress(self) -> dict[str, Any]:
        """What has to be known to go on after the last step."""
        return {
            "batches_done": self.done,
            "random_at_epoch_start": self._random_at_start,
            "meters": {name: [m.val, m.sum, m.count] for name, m in self.losses.meters.items()},
        }


def is_finite(values: Losses) -> bool:
    return math.isfinite(values["loss"])
