"""Pictures drawn by code: coloured shapes, and the renderings ("styles") that CLIP's templates speak of.

The demo benchmark and the pre-training of the small CLIP share this file, so that the words of a template ("pixelated",
"small", "many") mean the same to the picture that shows them and to the model that read about them.

Shapes: N pictures, C channels (RGB in [0, 1]), H x W pixels.
"""

import math
import random
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

COLOURS = {
    "red": (214, 45, 48),
    "orange": (240, 140, 40),
    "yellow": (238, 214, 60),
    "green": (60, 160, 70),
    "cyan": (70, 195, 205),
    "blue": (50, 90, 200),
    "purple": (130, 65, 170),
    "pink": (238, 140, 185),
}


def _ring_of_points(n: int, radii: tuple[float, ...], turn: float = -90.0) -> list[tuple[float, float]]:
    angles = [math.radians(turn + 360.0 * i / n) for i in range(n)]
    return [(radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a)) for i, a in enumerate(angles)]


def _heart() -> list[tuple[float, float]]:
    ts = [2 * math.pi * i / 40 for i in range(40)]
    return [
        (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17)
        for t in ts
    ]


def _crescent() -> list[tuple[float, float]]:
    outer = [(math.cos(a), math.sin(a)) for a in np.linspace(math.radians(50), math.radians(310), 30)]
    inner = [
        (0.32 + 0.74 * math.cos(a), 0.74 * math.sin(a)) for a in np.linspace(math.radians(290), math.radians(70), 30)
    ]
    return outer + inner


# Each shape is a polygon in the square [-1, 1] x [-1, 1]; y points down, as in pictures.
SHAPES: dict[str, list[tuple[float, float]]] = {
    "star": _ring_of_points(10, (1.0, 0.42)),
    "circle": _ring_of_points(40, (0.92,)),
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0.0, -0.95), (0.95, 0.8), (-0.95, 0.8)],
    "heart": _heart(),
    "cross": [(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3), (0.3, 1), (-0.3, 1), (-0.3, 0.3),
              (-1, 0.3), (-1, -0.3), (-0.3, -0.3)],
    "crescent": _crescent(),
    "arrow": [(-1, -0.28), (0.1, -0.28), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.28), (-1, 0.28)],
    "diamond": [(0, -1), (0.62, 0), (0, 1), (-0.62, 0)],
    "hourglass": [(-0.8, -0.95), (0.8, -0.95), (0.12, 0), (0.8, 0.95), (-0.8, 0.95), (-0.12, 0)],
}  # fmt: skip

CLASSNAMES = [f"{colour} {shape}" for shape in SHAPES for colour in COLOURS]


def draw_shape(classname: str, rng: random.Random, size: int = 32) -> Image.Image:
    """Draws one clean picture of a class such as "red star": a `size` x `size` RGB image.

    Position, size, rotation, shade and background vary with `rng`. Raises KeyError for an unknown colour or shape.
    """
    colour, shape = classname.split(" ")
    scale = 4  # drawn larger and reduced, so that edges are smooth
    wide = size * scale
    background = tuple(rng.randint(90, 215) for _ in range(3))
    picture = Image.new("RGB", (wide, wide), background)
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.randint(0, 3)):  # faint blots that belong to no class
        x, y, r = rng.uniform(0, wide), rng.uniform(0, wide), rng.uniform(0.05, 0.2) * wide
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(c + rng.randint(-30, 30) for c in background))
    radius = rng.uniform(0.26, 0.40) * wide
    cx, cy = (wide / 2 + rng.uniform(-0.1, 0.1) * wide for _ in range(2))
    turn = math.radians(rng.uniform(-25, 25))
    points = [
        (
            cx + radius * (x * math.cos(turn) - y * math.sin(turn)),
            cy + radius * (x * math.sin(turn) + y * math.cos(turn)),
        )
        for x, y in SHAPES[shape]
    ]
    shade = rng.uniform(0.75, 1.15)
    fill = tuple(min(255, max(0, int(c * shade + rng.uniform(-18, 18)))) for c in COLOURS[colour])
    pen.polygon(points, fill=fill)
    return picture.resize((size, size), Image.Resampling.BOX)


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
