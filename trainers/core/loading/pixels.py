"""A transform in two: what is done to a picture's pixels, by the workers, and what makes numbers of them, on the device.

Bytes are a quarter of what numbers are, through the workers' pipes and to the device, and a GPU scales a batch in no time.

Shapes: B pictures, H x W pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torchvision import transforms as T


class Numbers:
    """What ToTensor and the Normalize steps behind it do, for a batch: bit by bit the same numbers."""

    def __init__(self, steps: Sequence[T.Normalize] = ()) -> None:
        self._steps = [(step.mean, step.std) for step in steps]
        self._constants: dict[torch.device, tuple[torch.Tensor, list[list[torch.Tensor]]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_constants": {}}  # a worker that is not forked would open the GPU for them

    def _on(self, device: torch.device) -> tuple[torch.Tensor, list[list[torch.Tensor]]]:
        if device not in self._constants:
            rows = [[torch.tensor(row, device=device).view(-1, 1, 1) for row in step] for step in self._steps]
            # a tensor, since CUDA multiplies by the reciprocal of a plain number, which rounds otherwise
            self._constants[device] = torch.tensor(255.0, device=device), rows
        return self._constants[device]

    def __call__(self, images_BHW3: torch.Tensor) -> torch.Tensor:
        """Bytes, B x H x W x 3, to B x 3 x H x W, where the bytes are."""
        largest, steps = self._on(images_BHW3.device)
        images_B3HW = images_BHW3.permute(0, 3, 1, 2).contiguous().float().div_(largest)
        for mean, std in steps:
            images_B3HW.sub_(mean).div_(std)
        return images_B3HW


def in_two(transform: Any) -> tuple[T.Compose, Numbers] | None:
    """The steps on pixels and those behind, of a transform that ends in ToTensor and any Normalize; None for others."""
    steps = list(getattr(transform, "transforms", []))
    cut = next((i for i, step in enumerate(steps) if type(step) is T.ToTensor), None)
    if cut is None or not all(type(step) is T.Normalize for step in steps[cut + 1 :]):
        return None
    return T.Compose(steps[:cut]), Numbers(steps[cut + 1 :])


def as_bytes(pixels: Callable[[Any], Any]) -> Callable[[Any], torch.Tensor]:
    """`pixels` and what it gives, a picture in RGB, as bytes; H x W x 3."""
    return T.Compose([pixels, _bytes_of])


def _bytes_of(picture: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(picture))
