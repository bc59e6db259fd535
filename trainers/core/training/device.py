"""Sets how a device computes, as configured. Caches shared between runs depend on it."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch


def set_up(deterministic: bool, tf32: bool) -> None:
    """Sets, for this process, all that decides which kernels torch takes.

    deterministic: allow only deterministic kernels; a method that needs another one ends with torch's RuntimeError,
    which names it. tf32: see docs/SETTINGS.md. cuDNN never selects by timing, since it might select differently after a
    restart.
    """
    torch.backends.cudnn.benchmark = False
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # fused attention but this one has a backward pass that repeats itself
        torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.use_deterministic_algorithms(deterministic)
    _multiply(tf32)


@contextlib.contextmanager
def multiplying(tf32: bool) -> Iterator[None]:
    """Multiplies in float32 with TF32's ten bits, or without, while inside."""
    before = [(part, name, getattr(part, name)) for part, name in _float32_parts()]
    try:
        _multiply(tf32)
        yield
    finally:
        _multiply(before[0][2] in (True, "tf32"))
        for part, name, value in before:
            setattr(part, name, value)


def _multiply(tf32: bool) -> None:
    torch.set_float32_matmul_precision("high" if tf32 else "highest")  # the compiler of torch 2.9 and 2.10 asks for it
    for part, name in _float32_parts():
        setattr(part, name, tf32 if name == "allow_tf32" else "tf32" if tf32 else "ieee")


def described() -> dict[str, Any]:
    """Everything besides the device itself that can change the last bit of its results."""
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "float32": [str(getattr(part, name)) for part, name in _float32_parts()],
    }


def _float32_parts() -> list[tuple[Any, str]]:
    """Where torch keeps how it multiplies in float32; since 2.9 under another name."""
    cudnn: Any = torch.backends.cudnn
    if hasattr(torch.backends, "fp32_precision"):  # the old name raises where a part differs from its parts
        return [(part, "fp32_precision") for part in (torch.backends.cuda.matmul, cudnn, cudnn.conv, cudnn.rnn)]
    return [(part, "allow_tf32") for part in (torch.backends.cuda.matmul, cudnn)]
