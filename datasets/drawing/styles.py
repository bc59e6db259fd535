"""The renderings ("styles") that CLIP's templates speak of.

The drawn benchmarks and the pre-training of the small CLIP share this file, so that the words of a template ("pixelated",
"small", "many") mean the same to the picture that shows them and to the model that read about them.

Shapes: N pictures, C channels (RGB in [0, 1]), H x W pixels.
"""

import math
import random
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F


def _resize(images_NCHW: torch.Tensor, size: int, mode: str = "bilinear") -> torch.Tensor:
    if mode == "nearest":
        return F.interpolate(images_NCHW, size=(size, size), mode="nearest")
    return F.interpolate(images_NCHW, size=(size, size), mode=mode, align_corners=False, antialias=True)


def _border_colour(images_NCHW: torch.Tensor) -> torch.Tensor:
    edges = (images_NCHW[..., 0, :], images_NCHW[..., -1, :], images_NCHW[..., 0], images_NCHW[..., -1])
    return torch.cat(edges, dim=-1).mean(-1)[..., None, None]


def _clean(x: torch.Tensor, s: float, rng: random.Random) -> torch.Tensor:
    return x


def _pixelated(x: torch.Tensor, s: float, rng: random.Random) -> torch.Tensor:
    cells = round(x.shape[-1] * (0.34 - 0.10 * s))
    return _resize(F.adaptive_avg_pool2d(x, cells), x.shape[-1], "nearest")


def _blurry(x: torch.Tensor, s: float, rng: random.Random) -> torch.Tensor:
    sigma = x.shape[-1] / 32 * (1.3 + 1.0 * s)
    reach = int(3 * sigma)
    taps = torch.exp(-(torch.arange(-reach, reach + 1, dtype=x.dtype) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(F.pad(x, (reach,) * 4, mode="replicate"), taps, groups=x.shape[1])
    return F.conv2d(x, taps.transpose(2, 3), groups=x.shape[1])


def _bright(x: torch.Tensor, s: float, rng: random.Random) -> torch.Tensor:
    return x * (0.62 - 0.17 * s) + (0.38 + 0.17 * s)


def _dark(x: torch.Tensor, s: float, rng: random.Random) -> torch.Tensor:
    return x * (0.42 - 0.17 * s)


def _zoom(x: torch.Tensor, part: float, corner: tuple[float, float]) -> torch.Tensor:
    size = x.shape[-1]
    side = round(size * part)
    top, left = (round(c * (size - side)) for c in corner)
    return _resize(x[..., top : top + side, left : left + side], size, "bicubic")


def _cropped(x: torch.Tensor, s: float, rng: random.Random) -> torch.Tensor:
    return _zoom(x, 0.68 - 0.08 * s, (rng.choice((0.0, 1.0)), rng.choice((0.0, 1.0))))


def _large(x: torch.Tensor, s: float, rng: random.Random) -> torch.Tensor:
    return _zoom(x, 0.68 - 0.10 * s, (0.5, 0.5))


def _small(x: torch.Tensor, s: float, rng: random.Random) -> torch.Tensor:
    size = x.shape[-1]
    side = round(size * (0.52 - 0.12 * s))
    page = _border_colour(x).expand_as(x).clone()
    top, left = rng.randint(0, size - side), rng.randint(0, size - side)
    page[..., top : top + side, left : left + side] = _resize(x, side)
    return page


def _many(x: torch.Tensor, s: float, rng: random.Random) -> torch.Tensor:
    size, times = x.shape[-1], 2 if s < 0.5 else rng.choice((2, 3))
    side = math.ceil(size / times)
    return _resize(x, side).repeat(1, 1, times, times)[..., :size, :size]


def _sketch(x: torch.Tensor, s: float, rng: random.Random) -> torch.Tensor:
    edge = F.max_pool2d(x, 3, 1, 1) + F.max_pool2d(-x, 3, 1, 1)
    ink = (edge.amax(1, keepdim=True) * (2.6 - 0.8 * s)).clamp(0, 1)
    return ink * x * 0.9 + (1 - ink)


Rendering = Callable[[torch.Tensor, float, random.Random], torch.Tensor]

# A style is a rendering and the templates that describe it, the template that names it best first.
STYLES: dict[str, tuple[Rendering, list[str]]] = {
    "clean": (_clean, ["a photo of a {}.", "a good photo of a {}.", "a good photo of the {}."]),
    "pixelated": (_pixelated, ["a pixelated photo of a {}.", "a pixelated photo of the {}.",
                               "a low resolution photo of a {}.", "a low resolution photo of the {}."]),
    "blurry": (_blurry, ["a blurry photo of a {}.", "a blurry photo of the {}."]),
    "bright": (_bright, ["a bright photo of a {}.", "a bright photo of the {}."]),
    "dark": (_dark, ["a dark photo of a {}.", "a dark photo of the {}."]),
    "cropped": (_cropped, ["a cropped photo of a {}.", "a cropped photo of the {}."]),
    "large": (_large, ["a photo of a large {}.", "a photo of the large {}.", "a close-up photo of a {}."]),
    "small": (_small, ["a photo of a small {}.", "a photo of the small {}."]),
    "many": (_many, ["a photo of many {}."]),
    "sketch": (_sketch, ["a sketch of a {}.", "a sketch of the {}."]),
}  # fmt: skip


def render(images_NCHW: torch.Tensor, style: str, rng: random.Random, strength: float) -> torch.Tensor:
    """Renders square pictures in one of `STYLES`, each as strongly as `strength` in [0, 1] says; same shape out."""
    return STYLES[style][0](images_NCHW, strength, rng).clamp(0, 1)


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """RGB image -> C x H x W floats in [0, 1]."""
    return torch.from_numpy(np.array(picture, dtype=np.float32) / 255.0).permute(2, 0, 1)


def to_image(image_CHW: torch.Tensor) -> Image.Image:
    """C x H x W floats in [0, 1] -> RGB image."""
    return Image.fromarray((image_CHW.permute(1, 2, 0) * 255.0).round().to(torch.uint8).numpy(), mode="RGB")
