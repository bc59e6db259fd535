"""Reading pictures of all kinds into RGB."""

import os
from typing import IO

import numpy as np
from PIL import Image, ImageOps

# What Pillow raises for pictures that are truncated, damaged, no pictures, or far too large.
UNDECODABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class ImageError(OSError):
    """A picture is missing or cannot be decoded; the message names it and its class."""


def read_picture(path: str | os.PathLike | IO[bytes], upright: bool = False) -> Image.Image:
    """A picture in RGB, 8 bits a channel: 16-bit grey is scaled, what is transparent becomes white.

    upright: turned as its EXIF data say. Raises ImageError for pixels that have no such range (modes I and F), and what
    Pillow raises (UNDECODABLE).
    """
    with Image.open(path) as file:
        picture: Image.Image = ImageOps.exif_transpose(file) if upright else file
        if picture.mode.startswith("I;16"):
            picture = Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
        elif picture.mode in ("I", "F"):
            kind = {"I": "32-bit whole numbers", "F": "fractions"}[picture.mode]
            raise ImageError(f"has pixels that are {kind} (mode {picture.mode}), with no scale that is known")
        if picture.has_transparency_data:
            opaque = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
        return picture.convert("RGB")
