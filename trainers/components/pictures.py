"""Reading pictures of all kinds into RGB. Needs nothing but numpy and Pillow: exports carry this file with them."""

import functools
import os
import warnings
from typing import IO

import numpy as np
from PIL import Image, ImageOps

# What Pillow reads by itself; its EPS would start Ghostscript, whatever the file is called.
FORMATS = ("AVIF", "BLP", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICO", "IM", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM",
           "PSD", "QOI", "SGI", "TGA", "TIFF", "WEBP", "XBM", "XPM")  # fmt: skip
NARROWEST = 1000  # times as long as it is wide: resized by its shorter edge, it would fill the memory

# Pillow's advice to programmers, which Dassl's reading does not follow
warnings.filterwarnings("ignore", "Palette images with Transparency", UserWarning)


class ImageError(OSError):
    """A picture is missing or cannot be decoded; the message says why."""


UNDECODABLE = (OSError, ValueError)  # what read_picture raises, and opening a file


def read_picture(path: str | os.PathLike | IO[bytes], upright: bool = False) -> Image.Image:
    """A picture in RGB, 8 bits a channel.

    Without `upright` as Dassl reads benchmarks, by Pillow's own conversion, which everybody's numbers stand on; with it as
    people see theirs: turned as EXIF says, 16-bit grey scaled, what is transparent on white. Raises FileNotFoundError, and
    ImageError for all else that is no picture, whatever Pillow meets in it.
    """
    try:
        with Image.open(path, formats=_formats()) as file:
            longer, shorter = max(file.size), max(1, min(file.size))
            if longer > NARROWEST * shorter:
                raise ImageError(f"is a strip of {file.size[0]} x {file.size[1]} pixels")
            return _as_people_see_it(file) if upright else file.convert("RGB")
    except (FileNotFoundError, ImageError, MemoryError):
        raise
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageError(f"cannot be decoded ({said[:200]})") from error


@functools.cache
def _formats() -> list[str]:
    """Those of FORMATS that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def pictures_below(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """The pictures in a folder and in those below it, by their names, in order; and the files that are none of a kind that
    is read. Hidden files and folders, and what systems leave beside pictures, are neither."""
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in _formats()}
    found: list[str] = []
    others: list[str] = []
    for place, folders, files in os.walk(str(folder), followlinks=True):
        folders[:] = sorted(name for name in folders if not left_by_a_system(name))
        for name in files:
            if not left_by_a_system(name):
                path = os.path.join(place, name)
                readable = os.path.splitext(name)[1].lower() in known and os.path.isfile(path)
                (found if readable else others).append(path)
    return sorted(found), sorted(others)


def left_by_a_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini", "__macosx")


def told(others: list[str]) -> str:
    """A line on files that are not read, for a log; empty where there are none."""
    if not others:
        return ""
    suffixes = sorted({os.path.splitext(path)[1].lower() or "no suffix" for path in others})
    hint = "; HEIC needs the package pillow-heif and a conversion" if {".heic", ".heif"} & set(suffixes) else ""
    return (f"Note: {len(others)} files are no pictures of a kind that is read ({', '.join(suffixes[:6])}), the first is "
            f"{others[0]}{hint}")  # fmt: skip


def _as_people_see_it(file: Image.Image) -> Image.Image:
    picture = ImageOps.exif_transpose(file)
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
    elif picture.mode in ("I", "F"):
        kind = {"I": "32-bit whole numbers", "F": "fractions"}[picture.mode]
        raise ImageError(f"has pixels that are {kind} (mode {picture.mode}), with no scale that is known")
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    return picture.convert("RGB")
