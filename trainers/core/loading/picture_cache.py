"""Pictures that were decoded before, by another run: as photographs to train on, or resized and cropped to test on.

Shapes: B pictures, H x W pixels.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, features
from torchvision import transforms as T
from yacs.config import CfgNode

from . import read
from .array_cache import MB, ArrayCache
from .contents import cache_root, contents_for
from .pixels import as_bytes, in_two


def open_cache(cfg: CfgNode, holds: str, **about: Any) -> ArrayCache:
    """The cache of one kind of arrays of the dataset that a configuration names."""
    d = cfg.DATASET
    place = os.path.abspath(os.path.expanduser(d.FOLDER or d.ROOT or "data"))
    versions = {"pillow": PIL.__version__, "jpeg": features.version("jpg"), "torchvision": torchvision.__version__,
                "reading": code_of(read)}  # fmt: skip
    about = {"holds": holds, "dataset": d.NAME, "place": place, "versions": versions} | about
    return ArrayCache(cache_root(cfg), about, cfg.CACHE.LIMIT_MB * MB)


def code_of(*modules: ModuleType) -> str:
    """A digest of this project's code that makes the arrays: of these modules, and of all modules of a package."""
    digest = hashlib.sha256()
    for module in modules:
        file = Path(str(module.__file__))
        for each in sorted(file.parent.glob("*.py")) if file.name == "__init__.py" else [file]:
            digest.update(each.read_bytes())
    return digest.hexdigest()


class ResizedPictures:
    """Test pictures as they are after the transform's last step on pixels, H x W x 3 bytes, the same for all runs.

    pixels: picture -> picture.
    """

    def __init__(self, cfg: CfgNode, pixels: T.Compose, upright: bool) -> None:
        self._as_bytes, self.upright, self._contents = as_bytes(pixels), upright, contents_for(cfg)
        self.cache = open_cache(cfg, "resized", transform=repr(pixels), upright=upright)

    @classmethod
    def of(cls, cfg: CfgNode, transform: Any, upright: bool) -> "ResizedPictures | None":
        """None where nothing may be kept, or the transform may give something else each time."""
        parts = in_two(transform)
        if parts is None or cfg.DATALOADER.RETURN_IMG0:
            return None
        if not all(type(step) in (T.Resize, T.CenterCrop, T.Lambda) for step in parts[0].transforms):
            return None
        kept = cls(cfg, parts[0], upright)
        return kept if kept.cache.is_of_use else None

    def get(self, path: str, decode: Callable[[], Image.Image]) -> dict[str, Any]:
        """What a batch holds of one picture: "img", H x W x 3, and "fresh", the key of one that is not kept yet, or b""."""
        key = self._contents.key(path, self.upright)
        found = self.cache.get(key)
        if found is None:
            pixels_HW3 = self._as_bytes(decode())
            unchanged = self._contents.key(path, self.upright) == key
            return {"img": pixels_HW3, "fresh": key if unchanged else b""}
        return {"img": torch.from_numpy(found.copy()), "fresh": b""}

    def keeps(self, path: str) -> bool:
        """Whether a picture was decoded before."""
        return self._contents.key(path, self.upright) in self.cache

    def keep(self, batch: dict[str, Any]) -> None:
        """Caches the pictures of a batch that are new or that a worker found damaged; this process checks them
        again."""
        new = [(key, img.numpy()) for key, img in zip(batch["fresh"], batch["img"], strict=True) if key]
        self.cache.put((key, array) for key, array in new if self.cache.get(key) is None)


class Photographs:
    """Decoded pictures at full size, for one reader or many."""

    def __init__(self, cfg: CfgNode, paths: Iterable[str], upright: bool) -> None:
        self.cache = open_cache(cfg, "decoded", upright=upright)
        self._paths, self._upright, self._contents = list(paths), upright, contents_for(cfg)
        self.keys = [self._contents.key(path, upright) for path in self._paths]

    def missing(self) -> list[int]:
        """Numbers of those that are not kept, or damaged."""
        return [i for i, key in enumerate(self.keys) if self.cache.get(key) is None]

    def put(self, pictures: Iterable[tuple[int, Image.Image]]) -> None:
        self.cache.put(
            (key, np.asarray(picture))
            for i, picture in pictures
            if (key := self.keys[i]) and self._contents.key(self._paths[i], self._upright) == key  # unchanged
        )

    def get(self, i: int) -> Image.Image | None:
        found = self.cache.get(self.keys[i])
        return None if found is None else Image.fromarray(found)
