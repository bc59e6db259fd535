"""A training step as one CUDA graph. Its kernels are recorded once and replayed. Otherwise the host launches about a
thousand kernels one by one, which takes several times as long as the GPU needs to compute them.
"""

import contextlib
import functools
import gc
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

Shown = dict[str, torch.Tensor]


class StepGraph:
    """Forward and backward of a step: the first EAGER calls as they are, the next one recorded, all others replayed.

    step(*inputs) sets gradients that are None and returns scalars. It depends only on its inputs and on tensors that
    stay at their address. Random numbers are the device's, and a replayed step takes those that are next. learned: the
    parameters that get gradients. A step with other shapes than the recorded ones is computed without the graph. If a
    step cannot be recorded, all are, and `trouble` says why.
    """

    EAGER = 2  # in these, libraries choose their kernels and the text encoder its chunk

    def __init__(self, step: Callable[..., Shown], learned: Sequence[torch.nn.Parameter]) -> None:
        self._step, self._learned = step, learned
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self.trouble = ""

    def __call__(self, *inputs: torch.Tensor) -> Shown:
        self._calls += 1
        if self._graph is None and not self.trouble and self._calls > self.EAGER:
            self._record(inputs)
        if self._graph is None or [_kind(t) for t in inputs] != [_kind(t) for t in self._inputs]:
            return self._step(*inputs)
        for place, given in zip(self._inputs, inputs, strict=True):
            place.copy_(given, non_blocking=True)
        self._graph.replay()
        for parameter, grad in zip(self._learned, self._grads, strict=True):
            parameter.grad = grad
        return dict(zip(self._names, self._values.clone().unbind(), strict=True))

    def _record(self, inputs: Sequence[torch.Tensor]) -> None:
        self._inputs = [t.clone() for t in inputs]
        torch.cuda.empty_cache()  # what the graph takes is its own
        graph, stream, pool = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), torch.cuda.graph_pool_handle()
        fault: RuntimeError | None = None
        try:
            # a loader's thread may pin memory meanwhile
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                try:
                    shown = self._step(*self._inputs)
                    self._values = torch.stack([value.detach() for value in shown.values()])
                except RuntimeError as error:
                    fault = error
                    raise
        except RuntimeError as error:
            never_ended = error is not fault  # the recording's end failed, too
            self.trouble = str(fault or error).strip().splitlines()[0]
            for parameter in self._learned:
                parameter.grad = None  # of a backward pass that was begun, and never computed
            for found in (fault, error):
                traceback.clear_frames(found.__traceback__ if found else None)  # they hold what the step had computed
            fault = found = None
            del graph
        if self.trouble:
            torch.cuda.set_stream(stream)  # the recording's own stays where its end fails, too
            _leave_recording(pool if never_ended else None)
            torch.cuda.set_stream(stream)
            return
        self._names = list(shown)
        self._grads = [parameter.grad for parameter in self._learned]
        self._graph = graph


def _leave_recording(pool: Any) -> None:
    """Gives back what a recording that failed has taken. pool: its memory's, where its end failed, too, since torch then
    leaves the pool in use.

    A number is recorded afterwards: until torch 2.12 the generator else stays in its recording state and refuses to draw.
    """
    gc.collect()
    for give_back in (functools.partial(_release, pool), torch.cuda.empty_cache, _record_a_number):
        with contextlib.suppress(RuntimeError):
            give_back()


def _release(pool: Any) -> None:
    """Ends a recording's use of its pool, and gives the pool back. Raises RuntimeError where the use has ended already:
    then the graph gives it back."""
    if pool is None:
        return
    allocator: Any = torch._C
    before_2_8 = getattr(allocator, "_cuda_endAllocateCurrentStreamToPool", None)
    end = before_2_8 or allocator._cuda_endAllocateToPool
    end(torch.cuda.current_device(), pool)
    allocator._cuda_releasePool(torch.cuda.current_device(), pool)


def _record_a_number() -> None:
    with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
        torch.ones((), device="cuda")


def _kind(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.device
