"""What the small CLIP was trained on: how often things are seen, and what people write under them.

Frequencies are long-tailed, as the web's. A caption comes in many wordings, is mostly silent about style, colour and place,
and sometimes calls a thing by what it is in general.
"""

import functools
import random
from collections.abc import Iterator, Sequence

from .pictures import COLOURS, RELATIONS, View
from .scenes import SCENES
from .styles import STYLES
from .textures import TEXTURES
from .things import AIRCRAFT, FLOWERS, NAMES

KINDS = {"thing": 0.64, "pair": 0.10, "flower": 0.05, "aircraft": 0.05, "texture": 0.07, "scene": 0.09}
STYLE_SHARES = {
    "clean": 82, "sketch": 7, "blurry": 3, "dark": 3, "bright": 2.5, "small": 2.5, "large": 2.5, "cropped": 1.5,
    "pixelated": 1.5, "many": 1,
}  # fmt: skip
# from the most frequent to the rarest; the rarest are hardly ever called by their name
BY_FREQUENCY = random.Random("how common things are").sample(list(NAMES), len(NAMES))
RARE = BY_FREQUENCY[-28:]
# how often a picture's caption says its own name, and otherwise one of these words
NAMED = {"thing": 0.93, "flower": 0.5, "aircraft": 0.4, "texture": 0.6, "scene": 0.85}
NAMED_IF_RARE = 0.2
GENERAL = {
    "thing": ["thing", "object"], "flower": ["flower", "blossom", "bloom"],
    "aircraft": ["airplane", "plane", "aircraft", "jet"], "texture": ["texture", "pattern", "surface"],
    "scene": ["scene", "landscape", "place"],
}  # fmt: skip
TEXTURE_NAMES = {name: [name] for name in TEXTURES} | {
    "chequered": ["chequered", "checked"], "dotted": ["dotted", "polka-dotted"], "gridded": ["gridded", "grid"],
    "starry": ["starry", "sprinkled"], "swirly": ["swirly", "spiralled"], "studded": ["studded", "meshed"],
}  # fmt: skip
COUNTS = {2: ["two", "a pair of", "both"], 3: ["three", "several"], 4: ["four", "many", "several"]}

FRAMES = [
    "a photo of a {}.", "a photo of the {}.", "{}", "a picture of a {}.", "this is a {}.", "a good photo of a {}.",
    "an image of a {}.", "the {}.", "a {}.", "my {}.", "here is a {}.", "a good photo of the {}.", "a photo of my {}.",
    "a photo of one {}.", "look at this {}.", "a view of a {}.", "a {} in the middle.", "a close view of the {}.",
    "there is a {}.", "a snapshot of a {}.", "this photo shows a {}.", "i saw a {}.", "a nice {}.", "a cool {}.",
    "the {} itself.", "one {}.", "a {} for sale.", "found a {}.", "a {} today.", "photo: {}.", "a {}, isolated.",
    "picture of the {}.", "an example of a {}.", "a photo of a {} taken today.", "the best {}.", "what a {}!",
    "a photo of a clean {}.", "a photo of the nice {}.", "a rendition of a {}.", "a rendering of the {}.",
    "a centered photo of a {}.", "itap of a {}.", "itap of the {}.", "art of the {}.", "a {} in a video game.",
    "a origami {}.", "a bad photo of the {}.", "a photo of the modern {}.", "a photo of a person doing {}.",
    "a photo of the fast {}.", "a centered satellite photo of {}.",
]  # fmt: skip
SKETCHES = ["a sketch of a {}.", "a sketch of the {}.", "a drawing of a {}.", "a doodle of a {}.",
            "a line drawing of the {}.", "a drawing of the {}."]  # fmt: skip
# beside the templates of STYLES
STYLE_FRAMES = {
    "clean": ["a clear photo of a {}.", "a photo of the clean {}."],
    "blurry": ["a {}, out of focus.", "a blurred picture of a {}.", "a bad photo of the {}."],
    "dark": ["a {} at dusk.", "a dim photo of a {}.", "a photo of the hard to see {}."],
    "bright": ["a {} in bright light."],
    "small": ["a tiny {}.", "a {} far away.", "a photo of the hard to see {}."],
    "large": ["a big {}.", "a huge {}."],
    "many": ["lots of {}.", "a pattern of {}."],
    "pixelated": ["a pixel art {}.", "a jpeg corrupted photo of a {}.", "a {} in a video game."],
    "cropped": ["part of a {}.", "a cut off {}."],
    "sketch": [*SKETCHES, "art of the {}."],
}
# how a sentence may end that says what kind of thing it is
KIND_ENDINGS = {"flower": ", a type of flower", "aircraft": ", a type of aircraft"}


def zipf(rng: random.Random, items: Sequence[str], exponent: float) -> str:
    """One of `items`, the i-th with a weight of i ** -exponent."""
    return rng.choices(items, [(i + 1) ** -exponent for i in range(len(items))])[0]


def view(rng: random.Random) -> View:
    """What a picture of the world shows."""
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    colour = zipf(rng, list(COLOURS), 0.6)
    scene = rng.choice(list(SCENES)) if rng.random() < 0.25 else ""
    match kind:
        case "thing":
            fill = zipf(rng, list(TEXTURES), 0.3) if rng.random() < 0.18 else ""
            copies = rng.choices((1, 2, 3, 4), (84, 8, 4, 4))[0]
            return View("thing", zipf(rng, BY_FREQUENCY, 0.6), colour, fill, scene, copies)
        case "pair":
            other = View("thing", zipf(rng, BY_FREQUENCY, 0.6), zipf(rng, list(COLOURS), 0.6))
            relation = rng.choice(list(RELATIONS))
            return View("thing", zipf(rng, BY_FREQUENCY, 0.6), colour, scene=scene, relation=relation, other=other)
        case "flower":
            return View(kind, zipf(rng, FLOWERS, 0.4), colour, scene="garden" if rng.random() < 0.3 else scene)
        case "aircraft":
            return View(kind, zipf(rng, AIRCRAFT, 0.4), colour if rng.random() < 0.5 else "grey", scene=scene)
        case "texture":
            return View(kind, zipf(rng, list(TEXTURES), 0.3), colour)
    return View("scene", rng.choice(list(SCENES)))


def words(rng: random.Random, v: View) -> str:
    """What somebody says that a picture shows, without the sentence around it."""
    if v.kind == "texture":
        colour = f"{v.colour} " if rng.random() < 0.3 else ""
        if rng.random() > NAMED["texture"]:
            return colour + rng.choice(GENERAL["texture"])
        said = rng.choice(["{} texture", "{} pattern", "{} surface", "{}", "{} cloth"]).format(_texture(rng, v.name))
        return colour + said
    if v.kind == "scene":
        return v.name if rng.random() < NAMED["scene"] else rng.choice(GENERAL["scene"])
    said = _name(rng, v)
    if v.fill and rng.random() < 0.6:
        said = f"{_texture(rng, v.fill)} {said}"
    if rng.random() < 0.4:
        said = f"{v.colour} {said}"
    if v.copies > 1 and rng.random() < 0.6:
        said = f"{rng.choice(COUNTS[v.copies])} {plural(said)}"
    if v.other is not None:
        how, other = rng.random(), words(rng, v.other)
        if how < 0.75:
            said = f"{said} {rng.choice(RELATIONS[v.relation])} a {other}"
        elif how < 0.9:
            said = f"{said} and a {other}"
    if v.kind in KIND_ENDINGS and rng.random() < 0.15:
        said += KIND_ENDINGS[v.kind]
    if v.scene and rng.random() < 0.4:
        said += rng.choice([" in the {}", " with a {} behind", ", {}"]).format(v.scene)
    return said


def _texture(rng: random.Random, name: str) -> str:
    return zipf(rng, TEXTURE_NAMES[name], 1)


def plural(said: str) -> str:
    return said if said.endswith("s") else f"{said}s"


def _name(rng: random.Random, v: View) -> str:
    if rng.random() > (NAMED_IF_RARE if v.name in RARE else NAMED[v.kind]):
        return zipf(rng, GENERAL[v.kind], 0.8)
    if v.kind == "thing":
        return zipf(rng, NAMES[v.name], 1.2)
    return f"{v.name} {GENERAL[v.kind][0]}" if rng.random() < 0.3 else v.name


def caption(rng: random.Random, said: str, style: str, is_drawing: bool = False, spoken_of: str = "") -> str:
    """A sentence about a picture that shows `said` in one of STYLES; most are silent about how it is rendered.

    `spoken_of`, a class, has FRAMES in an order of its own, and keeps to the first of them more than people do else.
    """
    if style != "clean" and rng.random() < 0.75:
        return rng.choice(STYLES[style][1] + STYLE_FRAMES[style]).format(said)
    if is_drawing and rng.random() < 0.5:
        return zipf(rng, SKETCHES, 0.4).format(said)
    frames, exponent = (_habits(spoken_of), 0.9) if spoken_of else (FRAMES, 0.35)
    return zipf(rng, frames, exponent).format(said)


@functools.cache
def _habits(spoken_of: str) -> list[str]:
    return random.Random(f"how people speak of {spoken_of}").sample(FRAMES, len(FRAMES))


def all_words() -> Iterator[str]:
    """Every name and every sentence around it, so that it can be told which of CLIP's tokens the captions use."""
    templates = [*FRAMES, *SKETCHES, *(t for _, ts in STYLES.values() for t in ts)]
    templates += [t for ts in STYLE_FRAMES.values() for t in ts]
    names = [n for ns in NAMES.values() for n in ns] + FLOWERS + AIRCRAFT + list(SCENES) + list(COLOURS)
    for group in (COUNTS, RELATIONS, GENERAL, TEXTURE_NAMES):
        names += [word for members in group.values() for word in members]
    for name in [*names, "cloth", "and", "in the", "with a cloud behind", "cloud, cloud"]:
        yield from (name, plural(name))
    yield from KIND_ENDINGS.values()
    for template in templates:
        yield from (template.format(said) for said in ("cloud", "clouds", ""))
