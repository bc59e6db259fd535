"""Pictures of the drawn world: a thing or several, filled or plain, before a scene; two in a relation; a texture; a scene.

A picture is drawn at three times its size and reduced, so that edges are smooth.

Shapes: H x W pixels.
"""

import functools
import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .scenes import plain, scene
from .textures import texture
from .things import parts_of

SCALE = 3
COLOURS = {
    "red": (214, 45, 48), "blue": (50, 90, 200), "green": (60, 160, 70), "yellow": (238, 214, 60),
    "white": (240, 240, 238), "black": (32, 32, 36), "brown": (125, 80, 45), "orange": (240, 140, 40),
    "grey": (128, 130, 134), "pink": (238, 140, 185), "purple": (130, 65, 170), "cyan": (70, 195, 205),
    "beige": (222, 203, 165), "navy": (25, 35, 95), "olive": (120, 125, 45), "maroon": (110, 25, 40),
    "lime": (165, 225, 60), "teal": (20, 120, 120),
}  # fmt: skip
# letters of things.txt; m, d and b are shades of the thing's own colour
OWN = "mdb"
FIXED = {
    "k": (30, 30, 34), "w": (244, 244, 242), "g": (140, 142, 148), "n": (120, 78, 45), "f": (70, 150, 70),
    "y": (240, 205, 70), "s": (232, 190, 155),
}  # fmt: skip
NUMBERS = {letter: i + 1 for i, letter in enumerate([*OWN, *FIXED])} | {"B": 0}
# how the words of a relation are written, the usual ones first
RELATIONS = {
    "above": ["above", "over", "higher than"], "below": ["below", "under", "beneath"],
    "beside": ["beside", "next to", "near"], "inside": ["inside", "within"], "behind": ["behind", "covered by"],
    "around": ["surrounded by", "among"], "far": ["far from", "away from"],
}  # fmt: skip
Place = tuple[float, float, float]  # x, y, radius; shares of the page


@dataclass(frozen=True)
class View:
    """What a picture shows. kind: thing, flower, aircraft, texture or scene; name: one of that kind."""

    kind: str
    name: str
    colour: str = "grey"
    fill: str = ""  # a texture of the thing; empty: one colour
    scene: str = ""  # behind the thing; empty: plain
    copies: int = 1
    relation: str = ""  # of this thing to `other`
    other: "View | None" = None


def draw(view: View, rng: random.Random, size: int = 32) -> Image.Image:
    """A size x size RGB picture of what `view` says; place, size, turn, shade and background vary with `rng`.

    Raises KeyError for an unknown name, colour, texture, scene or relation.
    """
    wide = size * SCALE
    if view.kind == "texture":
        pixels = _textured(view, wide, rng)
    elif view.kind == "scene":
        pixels = scene(view.name, wide, rng)
    else:
        pixels = (scene(view.scene, wide, rng) if view.scene else plain(wide, rng, COLOURS[view.colour])).copy()
        for thing, place in _placed(view, rng):
            _paint(pixels, _numbers(thing, place, wide, rng), thing, rng)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BOX)


def _shade(colour: str, rng: random.Random) -> np.ndarray:
    factor = rng.uniform(0.78, 1.12)
    return np.array([min(255.0, max(0.0, c * factor + rng.uniform(-16, 16))) for c in COLOURS[colour]], np.float32)


def _textured(view: View, wide: int, rng: random.Random) -> np.ndarray:
    first, second = _shade(view.colour, rng), _shade(rng.choice(list(COLOURS)), rng)
    if np.abs(first - second).sum() < 120:  # too alike to tell apart
        second = 255 - first
    weight = texture(view.name, wide, rng)[..., None]
    return first * (1 - weight) + second * weight


def _numbers(thing: View, place: Place, wide: int, rng: random.Random) -> np.ndarray:
    """The numbers of the colours (NUMBERS) that a thing is drawn in, wide x wide; 0 where it is not."""
    x, y, radius = place
    turn, mirror, stretch = math.radians(rng.gauss(0, 9)), rng.choice((-1, 1)), math.exp(rng.gauss(0, 0.07))
    page = Image.new("L", (wide, wide), 0)
    pen = ImageDraw.Draw(page)

    def placed(points: np.ndarray) -> list[tuple[float, float]]:
        across, down = points[:, 0] * mirror * stretch * radius, points[:, 1] / stretch * radius
        left = (x + across * math.cos(turn) - down * math.sin(turn)) * wide
        top = (y + across * math.sin(turn) + down * math.cos(turn)) * wide
        return list(zip(left.tolist(), top.tolist(), strict=True))

    for part in parts_of(thing.kind, thing.name):
        number = NUMBERS[part.colour]
        if part.width:
            pen.line(placed(part.points), fill=number, width=max(1, round(part.width * radius * wide)), joint="curve")
        elif part.hole is None:
            pen.polygon(placed(part.points), fill=number)
        else:  # what is inside the ring stays what it was
            mask = Image.new("L", page.size, 0)
            ring = ImageDraw.Draw(mask)
            ring.polygon(placed(part.points), fill=255)
            ring.polygon(placed(part.hole), fill=0)
            page.paste(number, mask=mask)
    return np.asarray(page)


def _paint(pixels: np.ndarray, numbers: np.ndarray, thing: View, rng: random.Random) -> None:
    """Puts the colours of a thing where its numbers are."""
    own = _shade(thing.colour, rng)
    shades = {"m": own, "d": own * 0.62, "b": own * 0.55 + 255 * 0.45}
    for letter, colour in {**shades, **FIXED}.items():
        where = numbers == NUMBERS[letter]
        if letter == "m" and thing.fill:
            second = own * 0.35 + (255 * 0.65 if own.mean() < 128 else 0)
            weight = texture(thing.fill, len(numbers), rng)[where, None]
            pixels[where] = own * (1 - weight) + second * weight
        else:
            pixels[where] = colour


def _placed(view: View, rng: random.Random) -> list[tuple[View, Place]]:
    """What is drawn where; what comes later is in front."""
    near = functools.partial(_near, rng)
    if view.other is not None:
        return _related(view, view.other, rng)
    if view.copies == 1:
        return [(view, near(0.5, 0.5, rng.uniform(0.29, 0.42), 0.09))]
    corners = [(0.28, 0.28), (0.72, 0.72), (0.72, 0.28), (0.28, 0.72)]
    places = {
        2: rng.choice(([(0.27, 0.5), (0.73, 0.5)], [(0.28, 0.3), (0.72, 0.7)])),
        3: rng.choice((corners[:3], [(0.5, 0.25), (0.25, 0.72), (0.75, 0.72)])),
        4: corners,
    }[view.copies]
    radius = {2: 0.23, 3: 0.2, 4: 0.19}[view.copies]
    return [(view, near(x, y, radius * rng.uniform(0.85, 1.1), 0.03)) for x, y in places]


def _near(rng: random.Random, x: float, y: float, radius: float, by: float = 0.05) -> Place:
    return x + rng.uniform(-by, by), y + rng.uniform(-by, by), radius


def _related(one: View, other: View, rng: random.Random) -> list[tuple[View, Place]]:
    near = functools.partial(_near, rng)
    radius, side = rng.uniform(0.19, 0.24), rng.choice((-1, 1))
    match one.relation:
        case "above" | "below":
            up = 0.235 if one.relation == "above" else -0.235
            return [(one, near(0.5, 0.505 - up, radius)), (other, near(0.5, 0.505 + up, radius))]
        case "beside":
            return [(one, near(0.5 + side * 0.23, 0.5, radius)), (other, near(0.5 - side * 0.23, 0.5, radius))]
        case "inside":
            return [(other, near(0.5, 0.5, 0.46, 0.02)), (one, near(0.5, 0.5, 0.16, 0.03))]
        case "behind":
            return [
                (one, near(0.5 + side * 0.13, 0.44, 0.28, 0.02)),
                (other, near(0.5 - side * 0.13, 0.58, 0.28, 0.02)),
            ]
        case "around":
            ring = [(dx, dy) for dx in (-0.36, 0, 0.36) for dy in (-0.36, 0, 0.36) if dx or dy]
            return [(one, (0.5, 0.5, 0.2)), *[(other, (0.5 + dx, 0.5 + dy, 0.11)) for dx, dy in ring]]
        case "far":
            down = rng.choice((-1, 1))
            return [
                (one, near(0.5 + side * 0.35, 0.5 + down * 0.35, 0.13)),
                (other, near(0.5 - side * 0.35, 0.5 - down * 0.35, 0.13)),
            ]
    raise KeyError(one.relation)
