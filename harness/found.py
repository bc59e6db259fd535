"""What people's own pictures are, in lines for them before anything starts: classes, counts, sizes, split, names, time."""

import functools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from trainers.core.clip.backbones import Backbone
from trainers.core.clip.prompts import clean_classname
from trainers.core.clip.visual_tower import encode_pictures
from trainers.core.loading.read import UNDECODABLE, read_picture
from trainers.core.settings.configure import BALANCED

LOOKED_AT = 200  # pictures whose headers are read for their sizes
UNEVEN = 3  # times as many pictures in the largest class as in the smallest are worth a line
TIMED = 8  # pictures


def found(parts: dict[str, Sequence[Any]], backbone: Backbone, shots: int) -> Iterator[str]:
    """parts: the pictures (Datum) of train, val and test, before any draw. shots: that will be drawn of each class."""
    everything = [item for part in parts.values() for item in part]
    of_class = Counter(item.classname for item in everything)
    trained = Counter(item.classname for item in parts["train"])
    least, most = min(of_class.values()), max(of_class.values())
    unreadable = [item.impath for item in _some(everything) if _size(item.impath) is None]
    split = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    yield f"{len(everything):,} pictures of {len(of_class):,} classes, {each} each; {split}{_sizes(everything)}"
    dark = [item.impath for item in _some(everything) if _is_dark(item.impath)]
    if dark:
        yield (
            f"Note: {len(dark)} of {len(_some(everything))} that were looked at have 16 bits and use less than an eighth "
            f"of them, so they are seen as black: rescale them first; the first is {dark[0]}"
        )
    if unreadable:
        yield f"Note: {len(unreadable)} of {len(_some(everything))} that were looked at cannot be read: {unreadable[0]}"
    for name, part in parts.items():
        without = [known for known in of_class if known not in {item.classname for item in part}] if part else []
        if without:
            shown = ", ".join(without[:6]) + (", ..." if len(without) > 6 else "")
            yield f"Note: no {name} pictures of {len(without)} of the classes: {shown}"
    rare, few = min(trained.items(), key=lambda pair: pair[1])
    usual, many = max(trained.items(), key=lambda pair: pair[1])
    drawn_few, drawn_many = (min(count, shots) if shots > 0 else count for count in (few, many))
    if drawn_many >= UNEVEN * drawn_few:
        yield (
            f'Note: classes are uneven: "{usual}" trains with {drawn_many:,} pictures, "{rare}" with {drawn_few:,}; '
            f"DATALOADER.TRAIN_X.SAMPLER {BALANCED} draws all equally often, macro_f1 weighs all alike"
        )
    words = {name: clean_classname(name).split() for name in of_class}
    pieces = [name for name in of_class if len(backbone.vocabulary.encode(clean_classname(name))) > len(words[name])]
    if pieces:
        yield (
            f"{len(of_class) - len(pieces)} of {len(of_class)} names are words of CLIP's; in pieces, so less known to it"
            f": {', '.join(pieces[:6])}{', ...' if len(pieces) > 6 else ''} (classnames.txt gives others)"
        )
    if not torch.cuda.is_available():
        yield f"Encoding all of them once takes about {_seconds(backbone, len(everything))} here; training comes on top"


def _some(items: Sequence[Any]) -> Sequence[Any]:
    return items[:: max(1, len(items) // LOOKED_AT)]


@functools.cache
def _size(path: str) -> tuple[int, int] | None:
    """Width and height; None of what cannot be read."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except UNDECODABLE:
        return None


def _is_dark(path: str) -> bool:
    """Whether a picture of 16 bits holds 12 or fewer, as microscopes write them."""
    try:
        with Image.open(path) as picture:
            if not picture.mode.startswith("I;16"):
                return False
        return int(np.asarray(read_picture(path, upright=True)).max()) < 2**5  # of 2^8
    except UNDECODABLE:
        return False


def _sizes(items: Sequence[Any]) -> str:
    """Widths and heights of some of the pictures."""
    sizes = [size for item in _some(items) if (size := _size(item.impath))]
    if not sizes:
        return ""
    small, large = (min(sizes, key=lambda s: s[0] * s[1]), max(sizes, key=lambda s: s[0] * s[1]))
    return f"; {small[0]} x {small[1]}" + (f" to {large[0]} x {large[1]}" if large != small else "") + " pixels"


def _seconds(backbone: Backbone, count: int) -> str:
    height, width = backbone.preprocessing.size
    pictures = torch.zeros(TIMED, 3, height, width)
    took = []
    with torch.no_grad():
        for _ in range(2):
            begin = time.perf_counter()
            encode_pictures(backbone, pictures)
            took.append(time.perf_counter() - begin)
    seconds = min(took) / TIMED * count
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
