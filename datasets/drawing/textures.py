"""Textures: what fills a picture, or a thing in it. Each is a formula over a page whose size, turn and place vary.

Shapes: H x W pixels.
"""

import math
import random
from collections.abc import Callable

import numpy as np
from PIL import Image


class Page:
    """Coordinates of a square page. x, y: H x W in [0, 1]; u, v: turned and shifted a little, f times as fine."""

    def __init__(self, wide: int, rng: random.Random) -> None:
        self.wide, self.rng = wide, rng
        self.f, turn = rng.uniform(0.8, 1.25), rng.uniform(-0.25, 0.25)
        shift_x, shift_y = rng.random(), rng.random()
        self.y, self.x = np.mgrid[0:wide, 0:wide] / wide
        self.u = self.f * (self.x * math.cos(turn) - self.y * math.sin(turn) + shift_x)
        self.v = self.f * (self.x * math.sin(turn) + self.y * math.cos(turn) + shift_y)

    def waves(self, along: np.ndarray, count: float) -> np.ndarray:
        return np.sin(2 * np.pi * count * along)

    def noise(self, cells: int, cells_y: int = 0) -> np.ndarray:
        """Smooth blots, about `cells` by `cells_y` of them; in [0, 1]."""
        grid = [[round(255 * self.rng.random()) for _ in range(cells)] for _ in range(cells_y or cells)]
        picture = Image.fromarray(np.array(grid, np.uint8)).resize((self.wide, self.wide), Image.Resampling.BICUBIC)
        return np.asarray(picture) / 255.0

    def from_middle(self) -> np.ndarray:
        return np.hypot(self.x - 0.5, self.y - 0.5)

    def cells(self, across: float, down: float, staggered: bool) -> tuple[np.ndarray, np.ndarray]:
        """Where in its cell each pixel lies, both ways in [0, 1); every second row is half a cell aside if staggered."""
        row = np.floor(self.v * down)
        return (self.u * across + 0.5 * (row % 2) * staggered) % 1, (self.v * down) % 1


def _bricked(p: Page) -> np.ndarray:
    across, down = p.cells(4, 6, staggered=True)
    return (down < 0.18) | (across < 0.1)


def _scaly(p: Page) -> np.ndarray:
    across, down = p.cells(5, 5, staggered=True)
    return np.hypot(across - 0.5, down) > 0.6


def _honeycombed(p: Page) -> np.ndarray:
    across, down = p.cells(6, 6, staggered=True)
    return np.hypot(across - 0.5, down - 0.5) < 0.38


def _woven(p: Page) -> np.ndarray:
    over = (np.floor(p.u * 6) + np.floor(p.v * 6)) % 2 > 0
    return np.where(over, (p.u * 24) % 1 > 0.4, (p.v * 24) % 1 > 0.4)


def _swirly(p: Page) -> np.ndarray:
    return np.sin(2 * np.arctan2(p.y - 0.5, p.x - 0.5) + 20 * p.f * p.from_middle()) > 0


def _crossed(p: Page) -> np.ndarray:
    return np.minimum(np.abs(p.waves(p.u + p.v, 2)), np.abs(p.waves(p.u - p.v, 2))) < 0.25


# name -> weights of the second of two colours, H x W in [0, 1]
TEXTURES: dict[str, Callable[[Page], np.ndarray]] = {
    "striped": lambda p: p.waves(p.u, 5) > 0,
    "barred": lambda p: p.waves(p.v, 5) > 0,
    "lined": lambda p: p.waves((p.u + p.v) / 1.4, 5) > 0.7,
    "dotted": lambda p: p.waves(p.u, 4) * p.waves(p.v, 4) > 0.45,
    "spotted": lambda p: p.noise(9) > 0.66,
    "chequered": lambda p: p.waves(p.u, 2.5) * p.waves(p.v, 2.5) > 0,
    "zigzagged": lambda p: p.waves(p.v + 0.24 * np.abs((p.u * 4) % 2 - 1), 4) > 0,
    "wavy": lambda p: p.waves(p.v + 0.06 * p.waves(p.u, 3), 4) > 0,
    "bricked": _bricked,
    "gridded": lambda p: ((p.u * 5) % 1 < 0.2) | ((p.v * 5) % 1 < 0.2),
    "ringed": lambda p: p.waves(p.f * p.from_middle(), 6) > 0,
    "grainy": lambda p: p.noise(p.wide // 3),
    "marbled": lambda p: 0.5 + 0.5 * np.sin(2 * np.pi * (2 * p.u + 1.6 * p.noise(5))),
    "scaly": _scaly,
    "crossed": _crossed,
    "honeycombed": _honeycombed,
    "starry": lambda p: p.noise(p.wide // 4) > 0.9,
    "woven": _woven,
    "cracked": lambda p: np.abs(p.noise(6) - p.noise(7)) < 0.05,
    "swirly": _swirly,
    "bubbly": lambda p: np.abs(p.noise(7) - 0.6) < 0.07,
    "flaky": lambda p: np.round(p.noise(8) * 3) / 3,
    "blotchy": lambda p: p.noise(4) > 0.5,
    "fibrous": lambda p: p.noise(4, p.wide // 3),
    "pleated": lambda p: (p.u * 5) % 1,
    "studded": lambda p: np.clip(1.3 - 3.2 * np.hypot((p.u * 4) % 1 - 0.5, (p.v * 4) % 1 - 0.5), 0, 1),
    "matted": lambda p: 0.5 * p.noise(p.wide // 4) + 0.5 * p.noise(6),
    "smeared": lambda p: p.noise(p.wide // 4, 5),
}


def texture(name: str, wide: int, rng: random.Random) -> np.ndarray:
    """One of TEXTURES as weights of the second of two colours; wide x wide in [0, 1]. Raises KeyError for another name."""
    return TEXTURES[name](Page(wide, rng)).astype(np.float32)
