"""Files, names and random seeds."""

import difflib
import json
import os
import random
import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image


def mkdir_if_missing(dirname: str) -> None:
    os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str) -> bool:
    found = os.path.isfile(fpath)
    if not found:
        warnings.warn(f'No file found at "{fpath}"', stacklevel=2)
    return found


def read_json(fpath: str) -> Any:
    with open(fpath) as file:
        return json.load(file)


def write_json(obj: Any, fpath: str) -> None:
    mkdir_if_missing(os.path.dirname(fpath) or ".")
    with open(fpath, "w") as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))


def set_random_seed(seed: int) -> None:
    """Seeds python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def read_image(path: str) -> Image.Image:
    """The picture at `path` as RGB. Raises OSError when it is missing or no picture."""
    return Image.open(path).convert("RGB")


def collect_env_info() -> str:
    """Versions and devices, several lines, for the top of a log."""
    import PIL
    from torch.utils.collect_env import get_pretty_env_info

    return f"{get_pretty_env_info()}\n        Pillow ({PIL.__version__})"


def listdir_nohidden(path: str, sort: bool = False) -> list[str]:
    names = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(names) if sort else names


def get_most_similar_str_to_a_from_b(a: str, b: list[str]) -> str | None:
    """The member of `b` most like `a`; None when `b` is empty."""
    return max(b, key=lambda candidate: difflib.SequenceMatcher(None, a, candidate).ratio(), default=None)


def check_availability(requested: str, available: list[str]) -> None:
    """Raises ValueError, naming the nearest valid name, unless `requested` is one of `available`."""
    if requested not in available:
        near = get_most_similar_str_to_a_from_b(requested, available)
        raise ValueError(f'"{requested}" is unknown; did you mean "{near}"? Known: {", ".join(sorted(available))}')


def tolist_if_not(x: Any) -> list:
    return x if isinstance(x, list) else [x]
