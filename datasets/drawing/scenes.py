"""Scenes: what lies behind a thing, or is the picture itself.

Shapes: H x W pixels.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
# of each scene: colour of the sky above, at the horizon, of the ground at it and below; how far down the horizon lies
GROUNDS: dict[str, tuple[Colour, Colour, Colour, Colour, float]] = {
    "beach": ((110, 180, 235), (190, 225, 245), (60, 140, 190), (235, 215, 160), 0.45),
    "forest": ((90, 140, 90), (60, 110, 60), (50, 90, 45), (70, 60, 35), 0.75),
    "desert": ((150, 200, 240), (245, 225, 180), (235, 195, 120), (215, 165, 90), 0.5),
    "night": ((8, 10, 35), (20, 25, 70), (15, 20, 30), (5, 8, 12), 0.8),
    "city": ((170, 190, 210), (210, 215, 220), (110, 110, 115), (70, 70, 75), 0.82),
    "snow": ((200, 215, 235), (225, 235, 245), (245, 248, 252), (230, 238, 250), 0.5),
    "mountain": ((120, 170, 225), (190, 215, 240), (90, 120, 80), (70, 110, 60), 0.75),
    "field": ((130, 190, 245), (200, 230, 250), (120, 185, 70), (80, 150, 50), 0.55),
    "underwater": ((40, 150, 200), (20, 110, 170), (10, 70, 130), (5, 40, 90), 0.5),
    "room": ((225, 205, 180), (215, 195, 170), (150, 105, 70), (120, 80, 50), 0.68),
    "street": ((190, 205, 220), (200, 205, 205), (120, 120, 120), (85, 85, 88), 0.5),
    "sunset": ((90, 50, 110), (250, 130, 60), (120, 50, 50), (40, 20, 35), 0.65),
    "lake": ((150, 200, 240), (200, 225, 240), (70, 130, 170), (40, 95, 140), 0.4),
    "garden": ((160, 210, 245), (190, 230, 190), (90, 170, 80), (60, 140, 60), 0.35),
    "volcano": ((70, 40, 45), (120, 60, 50), (60, 45, 45), (35, 28, 30), 0.78),
    "cave": ((35, 30, 30), (60, 52, 48), (80, 70, 62), (45, 38, 34), 0.6),
    "harbour": ((170, 200, 225), (205, 220, 230), (60, 110, 150), (40, 80, 120), 0.55),
    "canyon": ((130, 185, 235), (225, 190, 150), (195, 110, 65), (150, 75, 45), 0.35),
    "swamp": ((150, 165, 130), (120, 140, 100), (75, 95, 60), (50, 70, 50), 0.45),
    "space": ((5, 5, 15), (12, 8, 30), (20, 10, 40), (5, 5, 15), 0.5),
}  # fmt: skip


@dataclass
class Stage:
    """A page with sky and ground, to put things on. Lengths are shares of the page; y points down."""

    pen: ImageDraw.ImageDraw
    rng: random.Random
    wide: int
    horizon: float

    def anywhere(self) -> float:
        return self.rng.uniform(0, 1)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        self.pen.rectangle([c * self.wide for c in (x0, y0, x1, y1)], fill=colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        self.pen.ellipse([c * self.wide for c in (x - rx, y - ry, x + rx, y + ry)], fill=colour)

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self.pen.polygon([(x * self.wide, y * self.wide) for x, y in points], fill=colour)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, width: float) -> None:
        self.pen.line([c * self.wide for c in (x0, y0, x1, y1)], fill=colour, width=max(1, round(width * self.wide)))

    def boxes(self, n: int, colour: Colour, lowest: float, highest: float, width: float, windows: bool = False) -> None:
        for _ in range(n):
            x, w, h = self.rng.uniform(-0.1, 1), self.rng.uniform(0.6, 1.3) * width, self.rng.uniform(lowest, highest)
            shade = self.rng.uniform(0.8, 1.2)
            r, g, b = (min(255, int(c * shade)) for c in colour)
            self.rectangle(x, self.horizon - h, x + w, self.horizon + 0.02, (r, g, b))
            for y in np.arange(self.horizon - h + 0.04, self.horizon - 0.04, 0.08) if windows else ():
                self.rectangle(x + w * 0.3, y, x + w * 0.6, y + 0.03, (235, 220, 140))

    def peaks(
        self, n: int, colour: Colour, height: float, width: float, lower: float = 0.0, cap: Colour | None = None
    ) -> None:
        for _ in range(n):
            x, y = self.anywhere(), self.horizon + self.rng.uniform(0, lower)
            w, h = width * self.rng.uniform(0.7, 1.3), height * self.rng.uniform(0.7, 1.2)
            self.polygon([(x, y - h), (x + w, y), (x - w, y)], colour)
            if cap:
                self.polygon([(x, y - h), (x + w * 0.3, y - h * 0.7), (x - w * 0.3, y - h * 0.7)], cap)

    def specks(self, n: int, colour: Colour, top: float, bottom: float, size: float = 0.015) -> None:
        for _ in range(n):
            r = size * self.rng.uniform(0.5, 1.5)
            self.ellipse(self.anywhere(), self.rng.uniform(top, bottom), r, r, colour)

    def poles(self, n: int, colour: Colour, top: float, bottom: float, lean: float, width: float) -> None:
        for _ in range(n):
            x = self.anywhere()
            self.line(x, top, x + self.rng.uniform(-lean, lean), bottom, colour, width)


def _beach(s: Stage) -> None:
    s.ellipse(0.78, 0.14, 0.08, 0.08, (255, 235, 140))
    s.rectangle(0, (s.horizon + 1) / 2, 1, 1, (235, 215, 160))


def _forest(s: Stage) -> None:
    s.poles(7, (75, 55, 35), 0, s.horizon + 0.04, 0, 0.055)
    s.specks(14, (40, 100, 45), 0, 0.3, 0.07)


def _desert(s: Stage) -> None:
    for _ in range(3):
        s.ellipse(s.anywhere(), s.horizon + 0.11, 0.4, 0.19, (225, 180, 105))


def _night(s: Stage) -> None:
    s.specks(18, (250, 250, 220), 0, s.horizon)
    s.boxes(4, (12, 14, 28), 0.1, 0.3, 0.16)


def _snow(s: Stage) -> None:
    s.peaks(4, (60, 100, 80), 0.3, 0.07, lower=0.2)
    s.specks(25, (255, 255, 255), 0, 1)


def _underwater(s: Stage) -> None:
    s.specks(12, (170, 220, 240), 0, 1, 0.02)
    s.peaks(5, (30, 120, 90), 0.35, 0.03, lower=0.9)


def _room(s: Stage) -> None:
    s.rectangle(0.12, 0.09, 0.45, 0.45, (120, 90, 60))
    s.rectangle(0.15, 0.12, 0.42, 0.42, (190, 220, 240))


def _street(s: Stage) -> None:
    s.polygon([(0.46, s.horizon), (0.54, s.horizon), (0.95, 1), (0.05, 1)], (60, 60, 64))
    s.boxes(4, (165, 120, 95), 0.2, 0.4, 0.18)
    s.polygon([(0.49, s.horizon), (0.51, s.horizon), (0.55, 1), (0.45, 1)], (240, 230, 150))


def _sunset(s: Stage) -> None:
    x, y, wide = s.rng.uniform(0.2, 0.8), s.horizon, s.wide
    s.pen.pieslice([c * wide for c in (x - 0.2, y - 0.2, x + 0.2, y + 0.2)], 180, 360, fill=(255, 225, 120))


def _lake(s: Stage) -> None:
    s.peaks(4, (60, 105, 70), 0.15, 0.2)
    for _ in range(4):
        y = s.rng.uniform(s.horizon, 1)
        s.line(0, y, 1, y, (110, 165, 200), 0.02)


def _garden(s: Stage) -> None:
    for colour in ((220, 60, 90), (245, 200, 60), (200, 120, 220)):
        s.specks(9, colour, s.horizon, 1, 0.03)


def _volcano(s: Stage) -> None:
    x, y = s.rng.uniform(0.35, 0.65), s.horizon
    s.polygon([(x - 0.08, y - 0.5), (x + 0.08, y - 0.5), (x + 0.5, y), (x - 0.5, y)], (50, 38, 38))
    s.polygon([(x - 0.08, y - 0.5), (x + 0.08, y - 0.5), (x + 0.03, y - 0.1), (x - 0.04, y - 0.15)], (255, 110, 30))


def _cave(s: Stage) -> None:
    s.ellipse(0.5, 0.525, 0.25, 0.325, (200, 215, 225))
    s.peaks(4, (35, 30, 28), 0.3, 0.05, lower=0.6)


def _harbour(s: Stage) -> None:
    for _ in range(6):
        x, y = s.anywhere(), s.horizon
        s.line(x, y - 0.35, x, y, (90, 70, 55), 0.02)
        s.polygon([(x - 0.09, y), (x + 0.09, y), (x + 0.06, y + 0.07), (x - 0.06, y + 0.07)], (150, 60, 50))


def _canyon(s: Stage) -> None:
    s.boxes(4, (185, 95, 55), 0, 0.3, 0.3)
    for layer in range(3):
        y = s.horizon + 0.12 + 0.16 * layer
        s.line(0, y, 1, y + s.rng.uniform(-0.06, 0.06), (140, 65, 40), 0.04)


def _swamp(s: Stage) -> None:
    s.poles(8, (50, 60, 30), s.horizon - 0.25, 0.8, 0.05, 0.03)
    s.specks(7, (110, 150, 80), s.horizon, 1, 0.05)


def _space(s: Stage) -> None:
    s.specks(25, (250, 250, 255), 0, 1, 0.008)
    s.specks(1, s.rng.choice([(200, 120, 70), (110, 160, 220), (210, 190, 140)]), 0.2, 0.8, 0.13)


SCENES: dict[str, Callable[[Stage], None]] = {
    "beach": _beach,
    "forest": _forest,
    "desert": _desert,
    "night": _night,
    "city": lambda s: s.boxes(8, (120, 125, 140), 0.25, 0.7, 0.14, windows=True),
    "snow": _snow,
    "mountain": lambda s: s.peaks(3, (110, 105, 110), 0.6, 0.4, cap=(245, 245, 250)),
    "field": lambda s: s.specks(10, (235, 220, 90), s.horizon + 0.05, 1),
    "underwater": _underwater,
    "room": _room,
    "street": _street,
    "sunset": _sunset,
    "lake": _lake,
    "garden": _garden,
    "volcano": _volcano,
    "cave": _cave,
    "harbour": _harbour,
    "canyon": _canyon,
    "swamp": _swamp,
    "space": _space,
}


def scene(name: str, wide: int, rng: random.Random) -> np.ndarray:
    """One of SCENES, wide x wide x 3 in [0, 255]. Raises KeyError for another name."""
    sky, far, near, ground, horizon = GROUNDS[name]
    horizon = min(0.9, max(0.15, horizon + rng.uniform(-0.08, 0.08)))
    y = (np.arange(wide) / wide)[:, None]
    above = np.array(sky) + (np.array(far) - np.array(sky)) * (y / horizon)
    below = np.array(near) + (np.array(ground) - np.array(near)) * ((y - horizon) / (1 - horizon))
    rows = (np.where(y < horizon, above, below) + rng.uniform(-14, 14)).clip(0, 255).astype(np.uint8)
    page = Image.fromarray(np.repeat(rows[:, None], wide, axis=1))
    SCENES[name](Stage(ImageDraw.Draw(page), rng, wide, horizon))
    return np.asarray(page).astype(np.float32)


def plain(wide: int, rng: random.Random, unlike: Colour) -> np.ndarray:
    """One colour with faint blots that belong to nothing, wide x wide x 3 in [0, 255]; unlike another colour."""
    red, green, blue = unlike
    while abs(red - unlike[0]) + abs(green - unlike[1]) + abs(blue - unlike[2]) < 150:
        red, green, blue = (rng.randint(70, 225) for _ in range(3))
    page = Image.new("RGB", (wide, wide), (red, green, blue))
    stage = Stage(ImageDraw.Draw(page), rng, wide, 1.0)
    for _ in range(rng.randint(0, 3)):
        shade = rng.randint(-30, 30)
        stage.specks(1, (red + shade, green + shade, blue + shade), 0, 1, 0.12)
    return np.asarray(page).astype(np.float32)
