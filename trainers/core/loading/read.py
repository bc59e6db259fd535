"""Reading pictures of all kinds into RGB. Needs nothing but numpy and Pillow: exports carry this file with them."""

import functools
import os
import stat
import warnings
from typing import IO

import numpy as np
from PIL import Image

# What pictures come in, and Pillow reads by itself and knows by its first bytes; its EPS would start Ghostscript, whatever
# the file is called.
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
LEFT_BY_SYSTEMS = (
    "thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "system volume information", "lost+found", "__pycache__",
)  # fmt: skip
NARROWEST = 1000  # times as long as it is wide: resized by its shorter edge, it would fill the memory

# Pillow's advice to programmers, which Dassl's reading does not follow, and its remark on large pictures, which it reads
warnings.filterwarnings("ignore", "Palette images with Transparency", UserWarning)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(OSError):
    """A picture is missing or cannot be decoded; the message says why."""


UNDECODABLE = (OSError, ValueError, Image.DecompressionBombError)  # what read_picture and Image.open raise


def read_picture(path: str | os.PathLike | IO[bytes], upright: bool = False) -> Image.Image:
    """A picture in RGB, 8 bits a channel.

    Without `upright`, as Dassl reads benchmarks, with Pillow's own conversion, as for all published numbers. With it,
    as people see the picture: rotated by EXIF, 16-bit grey scaled, transparency on white. Raises FileNotFoundError, and
    ImageError for anything else that cannot be read as a picture.
    """
    try:
        if isinstance(path, str | os.PathLike) and not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageError("is no file")  # a pipe would be waited for
        with Image.open(path, formats=_formats()) as file:
            longer, shorter = max(file.size), max(1, min(file.size))
            if longer > NARROWEST * shorter:
                raise ImageError(f"is a strip of {file.size[0]} x {file.size[1]} pixels")
            return as_people_see_it(file) if upright else file.convert("RGB")
    except (FileNotFoundError, ImageError):
        raise
    except MemoryError:
        raise ImageError("needs more memory than there is") from None
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageError(f"cannot be decoded ({said[:200]})") from error


def read_named(path: str | os.PathLike, upright: bool = False) -> Image.Image:
    """read_picture, whose ImageError then names the file."""
    try:
        return read_picture(path, upright)
    except ImageError as error:
        raise ImageError(f"{path} {error}") from error


@functools.cache
def _formats() -> list[str]:
    """Those of FORMATS that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def pictures_below(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """The pictures in a folder and its subfolders, sorted by name, and the files of other kinds. Hidden files and
    folders, and files that operating systems add, are in neither list. Raises OSError for what cannot be looked into."""
    found: list[str] = []
    others: list[str] = []

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(str(folder), onerror=refuse):  # links to folders may lead round
        folders[:] = sorted(name for name in folders if not left_by_a_system(name))
        others += [path for name in folders if os.path.islink(path := os.path.join(place, name))]
        for name in files:
            if not left_by_a_system(name):
                path = os.path.join(place, name)
                readable = is_picture(name) and os.path.isfile(path)
                (found if readable else others).append(path)
    return sorted(found), sorted(others)


@functools.cache
def _suffixes() -> set[str]:
    return {suffix for suffix, name in Image.registered_extensions().items() if name in _formats()} | {".mpo"}


def is_picture(name: str) -> bool:
    """Whether a file is, by its name, a picture of a kind that is read."""
    return os.path.splitext(name)[1].lower() in _suffixes()


def left_by_a_system(name: str) -> bool:
    return name.startswith((".", "@ea")) or name.lower() in LEFT_BY_SYSTEMS


def told(others: list[str]) -> str:
    """A line on files that are not read, for a log; empty where there are none."""
    if not others:
        return ""
    links = [path for path in others if os.path.islink(path)]
    files = [path for path in others if not os.path.islink(path)]
    suffixes = sorted({os.path.splitext(path)[1].lower() or "no suffix" for path in files})
    hint = "; save HEIC as JPEG" if {".heic", ".heif"} & set(suffixes) else ""
    said = []
    if files:
        kinds = ", ".join(suffixes[:6])
        said += [f"{len(files)} files are no pictures of a kind that is read ({kinds}), the first is {files[0]}{hint}"]
    if links:
        said += [f"{len(links)} links lead nowhere or to folders, and are not followed, the first is {links[0]}"]
    line = "; ".join(said)
    return line.encode("unicode_escape").decode("ascii") if not line.isprintable() else line


_TURNED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's orientation -> Pillow's transposition
_SAY_HOW_TO_TURN = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif", "Raw profile type xmp")


def as_people_see_it(picture: Image.Image) -> Image.Image:
    """In RGB: turned as EXIF says, 16-bit grey scaled, what is transparent on white. Raises ImageError for other pixels."""
    seen = _seen(picture)
    for name in _SAY_HOW_TO_TURN:
        seen.info.pop(name, None)  # it is turned
    return seen


def _seen(picture: Image.Image) -> Image.Image:
    picture.load()  # after which TIFF has turned itself
    turn = _TURNED.get(picture.getexif().get(0x0112, 1))
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM"):
        grey = Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
        return (grey if turn is None else grey.transpose(turn)).convert("RGB")  # type: ignore[arg-type]
    if picture.mode in ("I", "F"):
        kind = {"I": "32-bit whole numbers", "F": "fractions"}[picture.mode]
        raise ImageError(f"has pixels that are {kind} (mode {picture.mode}), with no scale that is known")
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    return (picture if turn is None else picture.transpose(turn)).convert("RGB")  # type: ignore[arg-type]
