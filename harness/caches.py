"""Lists and clears the caches that runs share on disk. Clearing is safe at any time: it costs time and changes no
result.

    python scripts/caches.py                     every cache: what it holds, of which dataset, how large, when last used
    python scripts/caches.py --clear             removes all of them
    python scripts/caches.py --clear features    ... those of features (resized, hashes, decoded, texts, features)

The folder is set by --folder, CACHE.FOLDER in a run's settings or MOCOOP_CACHE; the default is mocoop/ in your cache.
"""

import argparse
import contextlib
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from trainers.core.loading.array_cache import INDEX, MB, default_folder

HOLDS = {
    "resized": "test pictures, resized and cropped",
    "hashes": "what pictures hold, by what the system says of their files",
    "decoded": "training pictures at full size",
    "texts": "features of hard templates",
    "features": "features of pictures by frozen encoders",
}


@dataclass
class Found:
    """One cache on disk."""

    folder: Path
    holds: str
    about: str
    arrays: int
    size: int
    used: float  # when something was last put in, in seconds since 1970


def found_below(root: Path) -> list[Found]:
    """Every cache below `root`; other folders are ignored."""
    caches = []
    for folder in sorted(path for holds in HOLDS for path in (root / holds).glob("*") if path.is_dir()):
        with contextlib.suppress(FileNotFoundError, PermissionError):  # cleared meanwhile, or another user's
            files = {file.name: file.stat() for file in folder.iterdir() if file.is_file()}
            arrays = files["index"].st_size // INDEX.itemsize if "index" in files else 0
            used = max((status.st_mtime for status in files.values()), default=0.0)
            size = sum(status.st_size for status in files.values())
            caches.append(Found(folder, folder.parent.name, _about(folder), arrays, size, used))
    return caches


def _about(folder: Path) -> str:
    """The dataset, and what made the arrays of its pictures."""
    try:
        about = json.loads((folder / "about.json").read_text())
        backbone = f", backbone {about['backbone'][:12]}, {about['device']}" if "backbone" in about else ""
        return about.get("of") or f"{about['dataset']} in {about['place']}{backbone}"
    except (OSError, ValueError, KeyError, TypeError):
        return "nothing is known of it"


def show(root: Path, caches: list[Found]) -> None:
    if not caches:
        print(f"{root} holds nothing")
        return
    rows = [[c.holds, c.about, c.arrays, f"{c.size / MB:.1f}", time.strftime("%Y-%m-%d %H:%M", time.localtime(c.used))]
            for c in caches]  # fmt: skip
    print(tabulate(rows, ["holds", "of", "arrays", "MB", "last added to"]))
    print(f"\n{sum(c.size for c in caches) / MB:.1f} MB in {root}: {'; '.join(f'{k}: {v}' for k, v in HOLDS.items())}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where the caches are")
    parser.add_argument("--clear", nargs="?", const="all", choices=["all", *HOLDS], help="remove all, or one kind")
    args = parser.parse_args()
    caches = found_below(args.folder)
    if not args.clear:
        show(args.folder, caches)
        return 0
    chosen = [cache for cache in caches if args.clear in ("all", cache.holds)]
    for cache in chosen:
        shutil.rmtree(cache.folder, ignore_errors=True)  # a run that is using it may put something in meanwhile
    left = [cache.folder for cache in chosen if (cache.folder / "arrays").exists()]
    if left:
        print(f"error: {left[0]} cannot be removed: remove it by hand", file=sys.stderr)
        return 1
    print(f"Removed {len(chosen)} caches, {sum(c.size for c in chosen) / MB:.1f} MB, from {args.folder}")
    return 0
