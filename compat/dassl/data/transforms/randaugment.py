"""RandAugment (Cubuk et al., 2020) with the sixteen operations, ranges and random draws of Dassl's."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Operation = Callable[[Image.Image, float], Image.Image]


def _either_way(value: float) -> float:
    """With probability one half to the other side."""
    return -value if random.random() > 0.5 else value


def _moved(x_by_y: float, y_by_x: float, right: float, down: float) -> Callable[[float], tuple[float, ...]]:
    return lambda v: (1, x_by_y * v, right * v, y_by_x * v, 1, down * v)


def _affine(matrix: Callable[[float], tuple[float, ...]]) -> Operation:
    return lambda picture, v: picture.transform(picture.size, Image.Transform.AFFINE, matrix(_either_way(v)))


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda picture, v: kind(picture).enhance(v)


def _solarize(picture: Image.Image, v: Any) -> Image.Image:
    return ImageOps.solarize(picture, v)


def _solarize_add(picture: Image.Image, v: float) -> Image.Image:
    brighter = np.clip(np.asarray(picture).astype(int) + v, 0, 255).astype(np.uint8)
    return ImageOps.solarize(Image.fromarray(brighter), 128)


def _cutout(picture: Image.Image, v: float) -> Image.Image:
    """A grey square of `v` pixels whose middle is anywhere."""
    (width, height), middle = picture.size, (np.random.uniform(picture.size[0]), np.random.uniform(picture.size[1]))
    left, top = (int(max(0, place - v / 2)) for place in middle)
    picture = picture.copy()
    ImageDraw.Draw(picture).rectangle((left, top, min(width, left + v), min(height, top + v)), (125, 123, 114))
    return picture


OPERATIONS: list[tuple[Operation, float, float]] = [
    (lambda picture, _: ImageOps.autocontrast(picture), 0, 1),
    (lambda picture, _: ImageOps.equalize(picture), 0, 1),
    (lambda picture, _: ImageOps.invert(picture), 0, 1),
    (lambda picture, v: picture.rotate(_either_way(v)), 0, 30),
    (lambda picture, v: ImageOps.posterize(picture, int(v)), 4, 8),
    (_solarize, 0, 256),
    (_solarize_add, 0, 110),
    (_enhanced(ImageEnhance.Color), 0.1, 1.9),
    (_enhanced(ImageEnhance.Contrast), 0.1, 1.9),
    (_enhanced(ImageEnhance.Brightness), 0.1, 1.9),
    (_enhanced(ImageEnhance.Sharpness), 0.1, 1.9),
    (_affine(_moved(1, 0, 0, 0)), 0, 0.3),
    (_affine(_moved(0, 1, 0, 0)), 0, 0.3),
    (_cutout, 0, 40),
    (_affine(_moved(0, 0, 1, 0)), 0, 100),
    (_affine(_moved(0, 0, 0, 1)), 0, 100),
]


class RandAugment:
    """`count` operations, drawn with replacement, each at the strength `level` of 30."""

    def __init__(self, count: int, level: float) -> None:
        self.count, self.level = count, level

    def __call__(self, picture: Image.Image) -> Image.Image:
        for operation, least, most in random.choices(OPERATIONS, k=self.count):
            picture = operation(picture, self.level / 30 * (most - least) + least)
        return picture
