"""A GPU that is not there: CUDA's rules, a CPU's numbers.

Tensors carry a device of their own. What makes, moves and asks for tensors answers as on a machine with a GPU. Every
operation is looked at on its way to its kernel: tensors of two devices raise as CUDA raises, so does .numpy() of a tensor
on the GPU. What is done to the GPU is counted, with the line of the project that asked for it: kernels, waits of the host,
frozen weights that are cast again, numbers in float64. Random numbers of GPU tensors come from a generator of their own. A
CUDA graph records the operations and does them again, with the random numbers that are next; while it records, whatever
makes the host wait raises. As the real one it keeps addresses: memory from outside the recording that has been freed since
raises.

    install()                       in this process, for good
    counts, places                  what was done, how often, and where

What it cannot show: which kernels CUDA chooses, and whether they repeat themselves; what CUDA's own autocast computes in
half precision (a CPU's lists take its place); pinned memory; NCCL (gloo takes its place); memory that runs out.
"""

import collections
import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.cuda.amp.common
import torch.distributed as dist
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ROOT = str(Path(__file__).resolve().parents[2])
MEMORY = 16 * 2**30
counts: collections.Counter[str] = collections.Counter()  # kind -> how often
places: collections.Counter[tuple[str, str]] = collections.Counter()  # kind, file:line -> how often

_Tensor: Any = torch.Tensor
_real: dict[str, Any] = {"to": _Tensor.to, "device": torch._C.TensorBase.device}
# of storages that are not the CPU's: "cuda", or "any" for what a kernel made of nothing
_storages: dict[int, tuple[str, Any]] = {}
_frozen: set[int] = set()  # storages of weights whose casts are counted
_generator = torch.Generator()
pools: dict[Any, str] = {}  # of recordings that failed: in use, or ended
_now = threading.local()  # .making: the device of a factory that is running


def reset() -> None:
    counts.clear()
    places.clear()


def watch(module: torch.nn.Module) -> None:
    """Counts casts of its frozen weights from now on."""
    _frozen.update(_storage_of(p) for p in module.parameters() if not p.requires_grad)


def waits() -> dict[str, int]:
    """Where the host waited for the device, and how often."""
    return {f"{kind} {place}": n for (kind, place), n in places.items() if kind.startswith("wait")}


# --- where a tensor is --------------------------------------------------------------------------------------------------


def _storage_of(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _put(tensor: torch.Tensor, where: str) -> torch.Tensor:
    # the weak reference keeps the number from being used again
    _storages[_storage_of(tensor)] = (where, StorageWeakRef(tensor.untyped_storage()))
    return tensor


def _place(tensor: torch.Tensor) -> str:
    if tensor.layout != torch.strided:
        return "cpu"
    key = _storage_of(tensor)
    where, alive = _storages.get(key, ("cpu", None))
    if alive is not None and alive.expired():
        del _storages[key]
        return "cpu"
    return where


def on_gpu(tensor: torch.Tensor) -> bool:
    return _place(tensor) == "cuda"


def _means_gpu(device: Any) -> bool:
    return torch.device(device).type == "cuda"


def _note(kind: str) -> None:
    counts[kind] += 1
    frame = sys._getframe(1)
    while frame is not None:  # the line of the project that asked for it
        file = frame.f_code.co_filename
        if file.startswith(ROOT) and "/.venv/" not in file and "/virtual/" not in file:
            places[kind, f"{os.path.relpath(file, ROOT)}:{frame.f_lineno}"] += 1
            return
        frame = frame.f_back  # type: ignore[assignment]
    places[kind, "elsewhere"] += 1


def _wait(kind: str) -> None:
    if _tape is not None:
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({kind})")
    _note(f"wait: {kind}")


def _state_of_generator() -> torch.Tensor:
    if _tape is not None:
        raise RuntimeError("Cannot call CUDAGeneratorImpl::current_seed during CUDA graph capture.")
    return _generator.get_state()


# --- every operation ----------------------------------------------------------------------------------------------------

# these take tensors of two devices
_BETWEEN = {
    "aten::_to_copy",
    "aten::copy_",
    "aten::index",
    "aten::index_put",
    "aten::index_put_",
    "aten::_index_put_impl_",
    "aten::_local_scalar_dense",
    "aten::set_",
    "aten::detach",
    "aten::alias",
    "aten::is_pinned",
    "aten::lift_fresh",
}
_OF_UNKNOWN_SIZE = {"aten::nonzero", "aten::masked_select", "aten::equal", "aten::unique", "aten::_unique2"}
# an operation, its inputs, and which of its results are new
Recorded = tuple[Any, tuple, dict, list[tuple[int, torch.Tensor]], bool]  # whether it draws random numbers, last
_tape: list[Recorded] | None = None


class Rules(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        where = [_place(t) for t in tensors]
        here = "cuda" in where or getattr(_now, "making", "") == "cuda"
        if "cuda" in where and name not in _BETWEEN:
            strays = [t for t, place in zip(tensors, where, strict=True) if place == "cpu" and t.dim()]
            if strays:
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                    f"({name}, {[(place, tuple(t.shape)) for t, place in zip(tensors, where, strict=True)]})"
                )
        # attention has no dropout here
        draws = here and torch.Tag.nondeterministic_seeded in func.tags and "attention" not in name
        with _drawing_from_the_gpus() if draws else contextlib.nullcontext():
            out = func(*args, **kwargs)
        made = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        if name == "aten::copy_":
            self._copied(args[0], args[1], where)
        elif "cuda" in where:
            self._computed(func, name, args, tensors, made)
        elif set(where) == {"any"} or not (tensors or here):
            for t in made:
                if _place(t) == "cpu":
                    _put(t, "any")
        if _tape is not None and ("cuda" in where or any(map(on_gpu, made))):
            keys = {_storage_of(t) for t in tensors}
            leaves = enumerate(tree_leaves(out))
            fresh = [(i, t) for i, t in leaves if isinstance(t, torch.Tensor) and _storage_of(t) not in keys]
            _tape.append((func, args, kwargs, fresh, draws))
        return out

    def _copied(self, to: torch.Tensor, source: torch.Tensor, where: list[str]) -> None:
        if where[:2] == ["any", "cuda"]:
            _put(to, "cuda")
        elif where[:2] == ["cpu", "cuda"]:
            _wait("copy to the CPU")
        elif where[:2] == ["cuda", "cpu"]:
            _note("copy to the GPU")
        else:
            counts["kernels"] += 1

    def _computed(self, func: Any, name: str, args: tuple, tensors: list, made: list) -> None:
        masks = name == "aten::index" and any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in args[1])
        if name == "aten::_local_scalar_dense":
            _wait("item")
        elif name in _OF_UNKNOWN_SIZE or masks:
            _wait(name)
        for t in made:
            _put(t, "cuda")
        keys = {_storage_of(t) for t in tensors}
        if made and not func._schema.is_mutable and all(_storage_of(t) in keys for t in made):
            return  # a view
        counts["kernels"] += 1
        counts[f"kernel {name}"] += 1
        if name == "aten::_to_copy" and args[0].dtype != made[0].dtype and _storage_of(args[0]) in _frozen:
            _note("cast of a frozen weight")
        if any(t.dtype == torch.float64 for t in made):
            _note("float64")


@contextlib.contextmanager
def _drawing_from_the_gpus() -> Iterator[None]:
    ours = torch.default_generator
    before = ours.get_state()
    ours.set_state(_generator.get_state())
    try:
        yield
    finally:
        _generator.set_state(ours.get_state())
        ours.set_state(before)


# --- moving -------------------------------------------------------------------------------------------------------------


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, to_gpu: bool, dtype: torch.dtype) -> torch.Tensor:
        ctx.to_gpu, ctx.dtype = to_gpu, x.dtype
        return _moved(x.detach(), to_gpu, dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _moved(grads[0].detach(), not ctx.to_gpu, ctx.dtype), None, None


def _moved(x: torch.Tensor, to_gpu: bool, dtype: torch.dtype) -> torch.Tensor:
    with torch.utils._python_dispatch._disable_current_modes():
        y = x.to(dtype) if x.dtype != dtype else x.clone()
    if to_gpu:
        return _put(y, "cuda")
    _storages.pop(_storage_of(y), None)
    return y


def _to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    device: Any = None
    dtype: Any = None
    words = list(args)
    if words and isinstance(words[0], torch.Tensor):
        device, dtype = words[0].device, words[0].dtype
        words.pop(0)
    elif words and (words[0] is None or isinstance(words[0], str | torch.device) or type(words[0]) is int):
        device = words.pop(0)
    if words and isinstance(words[0], torch.dtype):
        dtype = words.pop(0)
    device, dtype = kwargs.get("device", device), kwargs.get("dtype", dtype)
    non_blocking = kwargs.get("non_blocking", words[0] if words else False)
    copy = kwargs.get("copy", words[1] if len(words) > 1 else False)
    form = kwargs.get("memory_format")
    target = on_gpu(self) if device is None else _means_gpu(device)
    if target == on_gpu(self):
        same = {"dtype": dtype, "copy": copy or None, "memory_format": form}
        same = {name: value for name, value in same.items() if value is not None}
        return _real["to"](self, **same) if same else self
    if target and non_blocking:
        _note("copy to the GPU")
    elif target:
        _wait("copy to the GPU")
    else:
        _wait("copy to the CPU")
    dtype = dtype or self.dtype
    if torch.is_grad_enabled() and self.requires_grad:
        return _Move.apply(self, target, dtype)
    return _moved(self, target, dtype)


# --- what the project asks of torch -------------------------------------------------------------------------------------


class Outside:
    """A tensor that was there before the recording, known by its address alone."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.storage = StorageWeakRef(tensor.untyped_storage())
        self.look = tensor.storage_offset(), tensor.size(), tensor.stride()
        self.dtype = tensor.dtype

    def tensor(self) -> torch.Tensor:
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)  # type: ignore[attr-defined]
        if storage is None:
            raise RuntimeError(f"the recorded step reads memory that has been freed ({self.look[1]}, {self.dtype})")
        return torch.empty(0, dtype=self.dtype).set_(storage, *self.look)  # type: ignore[call-overload]


class Graph:
    """torch.cuda.CUDAGraph: the operations that were recorded, and their results' places."""

    def __init__(self) -> None:
        self.tape: list[Recorded] = []

    def forget_what_is_outside(self, before: set[int]) -> None:
        """before: the storages on the GPU when the recording began."""

        def without(leaf: Any) -> Any:
            is_outside = isinstance(leaf, torch.Tensor) and leaf.numel() and _storage_of(leaf) in before
            return Outside(leaf) if is_outside else leaf

        self.tape = [
            (func, *tree_map(without, (args, kwargs)), made, draws) for func, args, kwargs, made, draws in self.tape
        ]

    def replay(self) -> None:
        counts["replays"] += 1
        with torch.utils._python_dispatch._disable_current_modes(), torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, made, draws in self.tape:
                args, kwargs = tree_map(lambda x: x.tensor() if isinstance(x, Outside) else x, (args, kwargs))
                with _drawing_from_the_gpus() if draws else contextlib.nullcontext():
                    again = tree_leaves(func(*args, **kwargs))
                for number, place in made:
                    place.copy_(again[number])


@contextlib.contextmanager
def _recording(graph: Graph, pool: Any = None, **_: Any) -> Iterator[None]:
    """As in CUDA, a recording in which something has failed fails again at its end, and keeps its pool."""
    global _tape
    _tape, drawn, before = graph.tape, _generator.get_state(), set(_storages)
    pools[pool] = "in use"
    try:
        yield
        del pools[pool]
    except RuntimeError:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904
    finally:
        _tape = None
        graph.forget_what_is_outside(before)
        _generator.set_state(drawn)  # recording computes nothing


def _end_pool(device: int, pool: Any) -> None:
    if pools.get(pool) != "in use":
        raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
    pools[pool] = "ended"


def _release_pool(device: int, pool: Any) -> None:
    if pools.pop(pool) != "ended":
        pools[pool] = "released in use"


def _empty_cache() -> None:
    if "in use" in pools.values():
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")


def _factory(owner: Any, name: str) -> None:
    plain = getattr(owner, name)

    def made(*args: Any, **kwargs: Any) -> torch.Tensor:
        device = kwargs.pop("device", None)
        source = args[0] if args and isinstance(args[0], torch.Tensor) else None
        like = source is not None and (owner is _Tensor or name.endswith("_like"))
        gpu = on_gpu(source) if device is None and like else device is not None and _means_gpu(device)
        before, _now.making = getattr(_now, "making", ""), "cuda" if gpu else "cpu"
        try:
            out = plain(*args, **kwargs)
        finally:
            _now.making = before
        if gpu and source is not None and not like:  # torch.as_tensor(tensor, device=...)
            return _to(out, "cuda")
        if gpu:
            if name in ("tensor", "as_tensor", "asarray", "new_tensor"):
                _wait("copy to the GPU")
            return _put(out, "cuda")
        return _to(out, "cpu") if device is not None and on_gpu(out) else out

    setattr(owner, name, made)


def install(memory: int = MEMORY, uuid: str = "GPU-0", count: int = 1) -> None:
    """Gives this process `count` GPUs of `memory` bytes each, all of them with the same memory in truth; for good."""
    T = _Tensor

    def numpy(self: Any, *args: Any, **kwargs: Any) -> Any:
        if on_gpu(self):
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first."
            )
        return _real["numpy"](self, *args, **kwargs)

    def tolist(self: Any) -> Any:
        return (self.cpu() if on_gpu(self) else self)._tolist()

    _real["numpy"] = T.numpy
    T._tolist = T.tolist
    T.device = property(lambda self: torch.device("cuda", 0) if on_gpu(self) else _real["device"].__get__(self))
    T.is_cuda = property(on_gpu)
    T.to, T.numpy, T.tolist = _to, numpy, tolist
    T.cuda = lambda self, device=None, non_blocking=False, **_: _to(self, "cuda", non_blocking=non_blocking)
    T.cpu = lambda self, **_: _to(self, "cpu")
    T.get_device = lambda self: 0 if on_gpu(self) else -1
    T.pin_memory = lambda self, *_: self
    array = T.__array__
    T.__array__ = lambda self, *given, **more: (numpy if on_gpu(self) else array)(self, *given, **more)
    for name in [
        "arange",
        "as_tensor",
        "asarray",
        "empty",
        "empty_like",
        "empty_strided",
        "eye",
        "full",
        "full_like",
        "linspace",
        "ones",
        "ones_like",
        "rand",
        "rand_like",
        "randint",
        "randn",
        "randn_like",
        "randperm",
        "scalar_tensor",
        "tensor",
        "zeros",
        "zeros_like",
    ]:
        _factory(torch, name)
    for name in ("new_zeros", "new_empty", "new_ones", "new_full", "new_tensor"):
        _factory(T, name)
    cuda: Any = torch.cuda
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: count,
        "_device_count_nvml": lambda: count,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: "Virtual GPU",
        "mem_get_info": lambda device=None: (memory, memory),
        "max_memory_allocated": lambda device=None: 0,
        "empty_cache": _empty_cache,
        "graph_pool_handle": object,
        "get_device_properties": lambda device=None: SimpleNamespace(
            total_memory=memory, uuid=uuid, name="Virtual GPU", major=8, minor=0
        ),
        "get_rng_state": lambda device="cuda": _state_of_generator(),
        "set_rng_state": lambda state, device="cuda": _generator.set_state(state),
        "manual_seed": lambda seed: _generator.manual_seed(int(seed)),
        "manual_seed_all": lambda seed: _generator.manual_seed(int(seed)),
        "current_stream": lambda device=None: None,
        "set_stream": lambda stream: None,
        "synchronize": lambda device=None: _wait("synchronize"),
        "is_bf16_supported": lambda *_, **__: True,
        "_is_in_bad_fork": lambda: False,
        "is_current_stream_capturing": lambda: _tape is not None,
        "CUDAGraph": Graph,
        "graph": _recording,
    }
    for name, answer in answers.items():
        setattr(cuda, name, answer)
    allocator: Any = torch._C
    allocator._cuda_endAllocateToPool = _end_pool
    allocator._cuda_releasePool = _release_pool
    torch.accelerator.is_available = lambda: False  # so that loaders pin nothing
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    real = torch.autocast

    class autocast(real):  # type: ignore[misc, valid-type]
        """A CPU's autocast under a GPU's name, to float16 where nothing is said."""

        def __init__(
            self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: Any = None
        ) -> None:
            dtype = torch.float16 if device_type == "cuda" and dtype is None else dtype
            super().__init__("cpu", dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)

    torch.autocast = torch.amp.autocast = torch.amp.autocast_mode.autocast = autocast  # type: ignore[misc, attr-defined]
    enabled, dtype_of = torch.is_autocast_enabled, torch.get_autocast_dtype
    torch.is_autocast_enabled = lambda kind="cpu": enabled("cpu")  # type: ignore[assignment]
    torch.get_autocast_dtype = lambda kind: dtype_of("cpu")
    group = torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype
    torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype = lambda lists, *rest: {  # type: ignore[attr-defined]
        (next(t for t in tensors[0] if t is not None).device, dtype): (tensors, indices)
        for (_, dtype), (tensors, indices) in group(lists, *rest).items()
    }
    begin = dist.init_process_group
    dist.init_process_group = lambda backend=None, **more: begin("gloo", **more)  # type: ignore[assignment]
    Rules().__enter__()
