"""Things: what they are called and what they are made of. Flowers and aircraft are look-alikes that differ in a few parts.

Shapes: N points, two coordinates each, in the square [-1, 1] x [-1, 1]; y points down.
"""

import functools
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Part:
    """A line or a filled polygon, perhaps with a hole. colour: a letter of things.txt; width 0: filled."""

    colour: str
    points: np.ndarray
    hole: np.ndarray | None = None
    width: float = 0.0


def _ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> np.ndarray:
    angle, a = np.linspace(0, 2 * np.pi, 24, endpoint=False), math.radians(turn)
    px, py = rx * np.cos(angle), ry * np.sin(angle)
    return np.stack([x + px * math.cos(a) - py * math.sin(a), y + px * math.sin(a) + py * math.cos(a)], axis=1)


def _star(n: float, x: float, y: float, radius: float, inner: float, turn: float) -> np.ndarray:
    corner = np.arange(2 * int(n))
    angle = math.radians(turn - 90) + np.pi * corner / n
    r = np.where(corner % 2 == 0, radius, radius * inner)
    return np.stack([x + r * np.cos(angle), y + r * np.sin(angle)], axis=1)


def part(colour: str, kind: str, *v: float) -> Part:
    """A part as things.txt describes it. Raises ValueError for another kind."""
    match kind:
        case "e":
            return Part(colour, _ellipse(*v))
        case "o":
            x, y, rx, ry, width = v
            return Part(colour, _ellipse(x, y, rx, ry), _ellipse(x, y, rx - width, ry - width))
        case "r":
            x0, y0, x1, y1 = v
            return Part(colour, np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
        case "p":
            return Part(colour, np.array(v).reshape(-1, 2))
        case "c":
            n, x, y, radius, turn = v
            angle = math.radians(turn) + 2 * np.pi * np.arange(int(n)) / n
            return Part(colour, np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1))
        case "t":
            return Part(colour, _star(*v))
        case "l":
            return Part(colour, np.array(v[1:]).reshape(-1, 2), width=v[0])
    raise ValueError(f'"{kind}" is no kind of part: see things.txt')


@functools.cache
def _read() -> dict[str, tuple[list[str], list[Part]]]:
    found = {}
    for line in (Path(__file__).parent / "things.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        names, parts = line.split("|")
        made = []
        for words in parts.split(";"):
            colour, kind, *numbers = words.split()
            made.append(part(colour, kind, *map(float, numbers)))
        found[names.split(" ")[0]] = (names.split(" "), made)
    return found


NAMES: dict[str, list[str]] = {name: names for name, (names, _) in _read().items()}  # the usual name -> all its names
FLOWERS = ["rose", "tulip", "daisy", "lily", "iris", "poppy", "dahlia", "aster", "violet", "orchid", "lotus", "peony",
           "zinnia", "marigold", "anemone", "primrose", "begonia", "azalea", "camellia", "gardenia", "hibiscus", "foxglove",
           "cyclamen", "bluebell"]  # fmt: skip
AIRCRAFT = ["boeing", "airbus", "cessna", "piper", "concorde", "spitfire", "mustang", "hornet", "falcon", "harrier",
            "tomcat", "raptor", "fokker", "embraer", "bombardier", "gulfstream", "learjet", "dakota", "hercules", "galaxy",
            "antonov", "tupolev", "ilyushin", "saab"]  # fmt: skip


def _flower(name: str) -> list[Part]:
    """How many petals, how wide and long, and of which colours: no two of FLOWERS are alike."""
    i, rng = FLOWERS.index(name), random.Random(f"flower {name}")
    count, width, length = (4, 5, 6, 8, 11, 14)[i % 6], (0.34, 0.2)[i // 6 % 2], (0.95, 0.75)[i // 12 % 2]
    other = rng.choice("bbbw")  # of every second petal, where there is one
    petals = []
    for petal in range(count):
        angle = 2 * math.pi * petal / count
        shape = _ellipse(0.55 * length * math.cos(angle), 0.55 * length * math.sin(angle), 0.45 * length,
                         width * (5 / count) ** 0.4, math.degrees(angle))  # fmt: skip
        petals.append(Part(other if petal % 2 and i % 3 else "m", shape))
    middle = rng.choice((0.2, 0.32, 0.45))
    return [*petals, part(rng.choice("yykd"), "e", 0, 0, middle, middle)]


def _aircraft(name: str) -> list[Part]:
    """Seen from above. Sweep and span of the wings, engines, body and tail: no two of AIRCRAFT are alike."""
    i, rng = AIRCRAFT.index(name), random.Random(f"aircraft {name}")
    sweep, span, engines = (0.0, 0.3, 0.6, -0.2)[i % 4], (1.0, 0.7)[i // 4 % 2], (0, 2, 4)[i // 8 % 3]
    body, tail = rng.choice((0.13, 0.2, 0.26)), rng.choice((0.3, 0.45))
    at, chord = rng.choice((-0.15, 0.1)), rng.choice((0.22, 0.38))
    tip, back = at + sweep, 0.85 + sweep / 3
    made = [
        part("m", "p", 0, at - chord / 2, span, tip, span, tip + chord * 0.6, 0, at + chord / 2,
             -span, tip + chord * 0.6, -span, tip),
        part("m", "e", 0, 0, body, 1.0),
        part("d", "p", 0, 0.7, tail, back, tail, back + 0.15, 0, 0.9, -tail, back + 0.15, -tail, back),
    ]  # fmt: skip
    for engine in range(engines):
        x = span * (0.35 + 0.3 * (engine // 2)) * (1 if engine % 2 else -1)
        y = at + sweep * abs(x) / span
        made.append(part("k", "r", x - 0.08, y - 0.14, x + 0.08, y + 0.16))
    return made


@functools.cache
def parts_of(kind: str, name: str) -> list[Part]:
    """What a "thing", "flower" or "aircraft" is made of. Raises KeyError or ValueError for an unknown name."""
    if kind == "flower":
        return _flower(name)
    return _aircraft(name) if kind == "aircraft" else _read()[name][1]
