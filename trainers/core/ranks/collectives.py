"""One training on several devices: how a step is divided among the ranks, and how they communicate.

Every rank is a process with the whole frozen model. All ranks draw the same batches. Each takes its slice of the
pictures and its share of the prompts, and weights its loss by its share of the batch. The losses of all ranks then add
up to that of one process, both for means over pictures and for terms that all ranks compute alike. Text features are
gathered with gradients. Trainable tensors get the sum of all ranks' gradients. With one process, nothing here has any
effect.

Shapes: W ranks, N prompts of all ranks, R of this one, D features.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
GRACE = 5.0  # seconds in which Watch (process_group.py) can find out which rank died


class RanksParted(ValueError):
    """The ranks have diverged; the message names the difference."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of one training. Its methods are to be called by all of them, in the same order."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.size > 1

    # --- who takes what ------------------------------------------------------------------------------------------------

    def slice_of(self, count: int) -> slice:
        """This rank's part of `count` things in a row, empty where there are fewer than ranks."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def turns(self, things: Sequence[T]) -> Sequence[T]:
        """Every W-th, beginning with this rank's first."""
        return things[self.rank :: self.size]

    # --- what they tell each other -------------------------------------------------------------------------------------

    def add_up(self, grads: Sequence[torch.Tensor], shown: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Puts the sum over ranks into `grads`, in one call, and returns the sums of the scalars `shown`, detached."""
        if not self.several:
            return {name: value.detach() for name, value in shown.items()}
        dtype = torch.float32
        for tensor in grads:
            dtype = torch.promote_types(dtype, tensor.dtype)
        flat = torch.cat([tensor.detach().reshape(-1).to(dtype) for tensor in (*grads, *shown.values())])
        together(lambda: dist.all_reduce(flat))
        *sums, values = flat.split([*(g.numel() for g in grads), len(shown)])
        for grad, own in zip(grads, sums, strict=True):
            grad.copy_(own.view_as(grad))
        return dict(zip(shown, values, strict=True))

    def gather(self, own_RD: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """All ranks' rows, one rank's after the other, with gradients; N x D. counts: rows of each rank."""
        return _Gather.apply(own_RD, list(counts), self.rank) if self.several else own_RD

    def all_max(self, *numbers: int) -> list[int]:
        """The elementwise maximum over all ranks; also a barrier."""
        if not self.several:
            return list(numbers)
        told = torch.tensor(numbers)
        together(lambda: dist.all_reduce(told, op=dist.ReduceOp.MAX))
        return told.tolist()

    def broadcast(self, thing: T) -> T:
        """Rank 0's value, on all ranks."""
        if not self.several:
            return thing
        told = [thing]
        together(lambda: dist.broadcast_object_list(told, src=0))
        return told[0]

    def collect(self, thing: T) -> list[T]:
        """All ranks' values in rank order, on rank 0; empty on the others."""
        if not self.several:
            return [thing]
        told: list[Any] | None = [None] * self.size if self.first else None
        together(lambda: dist.gather_object(thing, told, dst=0))
        return told or []

    def all_say(self, value: T) -> list[T]:
        """All ranks' values in rank order, on all ranks."""
        told: list[Any] = [value] * self.size
        if self.several:
            together(lambda: dist.all_gather_object(told, value))
        return told

    def assert_same(self, what: str, value: Any) -> None:
        """Raises RanksParted, on every rank, unless all have the same `value` of `what`."""
        if not self.several:
            return
        told = self.all_say(value)
        for rank, theirs in enumerate(told):
            if theirs != told[0]:
                lines = zip(str(theirs).splitlines(), str(told[0]).splitlines(), strict=False)
                one, other = next((pair for pair in lines if pair[0] != pair[1]), (theirs, told[0]))
                raise RanksParted(
                    f"rank {rank} has another {what} than rank 0 ({_short(one)}, {_short(other)}): start all ranks "
                    "with the same code, data, output folder and settings"
                )

    def sync_from_rank0(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copies rank 0's `tensors` to all ranks, since rounding may have made them differ slightly.

        Raises RanksParted if they differ by more.
        """
        if not self.several:
            return
        for name, tensor in tensors.items():
            if not tensor.numel():
                continue
            theirs = tensor.detach().clone(memory_format=torch.contiguous_format)
            together(functools.partial(dist.broadcast, theirs, src=0))
            apart, size = float((tensor.detach() - theirs).abs().max()), float(theirs.abs().max())
            if self.all_max(int(not apart <= 1e-3 * size))[0]:
                raise RanksParted(f'"{name}" is no longer the same on all ranks: start again from the last checkpoint')
            with torch.no_grad():
                tensor.copy_(theirs)


_here = Ranks()


def this_rank() -> Ranks:
    """This process among the ranks of its training."""
    return _here


def set_here(ranks: Ranks) -> None:
    global _here
    _here = ranks


def together(call: Callable[[], Any]) -> None:
    """Runs a collective operation. If a rank has died, the others wait until it is known which."""
    try:
        call()
    except RuntimeError:
        time.sleep(GRACE)
        raise


class _Gather(torch.autograd.Function):
    """Rows of all ranks; backward: the sum of all ranks' gradients of this rank's rows. Shards are padded to one length."""

    @staticmethod
    def forward(ctx: Any, own_RD: torch.Tensor, counts: list[int], rank: int) -> torch.Tensor:
        ctx.counts, ctx.rank, ctx.dtype = counts, rank, own_RD.dtype
        longest = max(counts)
        padded = own_RD.new_zeros(longest, own_RD.shape[1])
        padded[: len(own_RD)] = own_RD
        all_padded = own_RD.new_empty(longest * len(counts), own_RD.shape[1])
        together(lambda: dist.all_gather_into_tensor(all_padded, padded))
        return torch.cat([part[:n] for part, n in zip(all_padded.split(longest), counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad_ND,) = grads
        longest, D = max(ctx.counts), grad_ND.shape[1]
        wide = torch.promote_types(ctx.dtype, torch.float32)  # sums of halves would lose what they add
        padded = grad_ND.new_zeros(len(ctx.counts), longest, D, dtype=wide)
        for part, own, n in zip(padded, grad_ND.split(ctx.counts), ctx.counts, strict=True):
            part[:n] = own
        summed = padded.new_empty(longest, D)
        together(lambda: dist.reduce_scatter_tensor(summed, padded.flatten(0, 1)))
        return summed[: ctx.counts[ctx.rank]].to(ctx.dtype), None, None


def balanced(weights: Sequence[int], parts: int) -> list[int]:
    """Where to cut a row of things into `parts` of about equal weight: parts + 1 places, from 0 to its length."""
    ends = [0]
    for weight in weights:
        ends.append(ends[-1] + weight)
    cuts = [min(range(len(ends)), key=lambda i: abs(ends[i] * parts - ends[-1] * p)) for p in range(parts)]
    return [*cuts, len(weights)]


def _short(value: Any) -> str:
    text = str(value).strip()
    return text if len(text) <= 60 else f"{text[:57]}..."
