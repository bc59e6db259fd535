"""Computations that use at least float32, whatever precision the encoders use.

Logits reach 30 and more, where bfloat16 has steps of 0.125 and float16 of 0.016. Classes would tie, and rounding would
decide the router's choice.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

HALVES = (torch.float16, torch.bfloat16)


def in_full_precision(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`function` without autocast, with its half-precision tensor arguments converted to float32."""

    @functools.wraps(function)
    def run(*args: Any) -> torch.Tensor:
        full = [a.float() if isinstance(a, torch.Tensor) and a.dtype in HALVES else a for a in args]
        device = next(a.device.type for a in args if isinstance(a, torch.Tensor))
        with torch.autocast(device, enabled=False):
            return function(*full)

    return run


einsum = in_full_precision(torch.einsum)
linear = in_full_precision(torch.nn.functional.linear)
mean_distance = in_full_precision(torch.nn.functional.l1_loss)


@in_full_precision
def cosine_logits(image_BD: torch.Tensor, text_CD: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """scale <f, w_c> of normalised features; B x C."""
    return scale * image_BD @ text_CD.T


@in_full_precision
def normalized(features: torch.Tensor) -> torch.Tensor:
    """Of length 1 along the last dimension."""
    return torch.nn.functional.normalize(features, dim=-1)


@in_full_precision
def mean_angle(one_CD: torch.Tensor, other_CD: torch.Tensor) -> torch.Tensor:
    """1 - mean_c cos(one_c, other_c); a scalar."""
    return 1 - torch.nn.functional.cosine_similarity(one_CD, other_CD, dim=-1, eps=1e-7).mean()
