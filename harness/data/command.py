"""Prepares datasets: fetches what is missing, checks it, and says in plain words what only you can fetch.

    python scripts/prepare_data.py --list
    python scripts/prepare_data.py caltech101 dtd
    python scripts/prepare_data.py all --dry-run
    python scripts/prepare_data.py imagenet --link PATH_OF_A_COPY
    python scripts/prepare_data.py --verify caltech101
    python scripts/prepare_data.py clip:ViT-B/16            CLIP's weights, where clip looks for them
    python scripts/prepare_data.py open_clip:ViT-B-16/laion2b_s34b_b88k     likewise, also hf-hub:ORG/NAME

A folder appears under its final name when it is complete. Stopped at any point, the same command continues. What is there
already is left alone. manifest.json in the folder says where everything came from, with SHA-256.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.data.fetch import FetchError
from harness.data.prepare import SOURCES, Options, PrepareError, Source, prepare, read_sources
from harness.data.unpack import UnpackError
from harness.data.verify import verify
from trainers.core.runs.files import InUseError
from trainers.core.settings.errors import did_you_mean
from trainers.paths import from_project

MODELS = ("clip:", "open_clip:", "hf-hub:")


def listing(known: dict[str, Source], root: Path) -> str:
    """Every dataset, where it comes from, and whether it is there."""
    rows = []
    for source in known.values():
        folder = root / source.folder
        state = "complete" if source.complete(root) else "incomplete" if folder.is_dir() else "-"
        fetched = source.mirror or all(part.sources for part in source.parts)
        origin = source.package if source.package else "download" if fetched else "your account"
        rows.append([source.name, folder, *source.pictures, source.classes, f"{source.gb:.2f}", origin, state])
    header = ["dataset", "folder", "train", "val", "test", "classes", "GB", "from", "state"]
    return tabulate(rows, header, disable_numparse=True, colalign=("left", "left", *["right"] * 5, "left", "left"))


def dry_run(source: Source, root: Path) -> str:
    """What preparing would do, a line per part."""
    folder = root / source.folder
    if source.package:
        return f"{source.name}: " + (f"{folder} is there" if source.complete(root) else f"by {source.package}")
    lines = []
    for part in source.parts:
        what = ", ".join(part.gives)
        if not part.missing(folder):
            lines.append(f"{source.name}: {folder}: {what}: there")
            continue
        urls = [o.get("url") or o["drive_url"] for o in part.sources]
        urls += [source.mirror["url"]] if source.mirror else []
        places = ", or ".join(urls) or f"by hand: {source.by_hand}"
        lines.append(f"{source.name}: {folder}: {what} ({part.gb:.2f} GB) from {places}")
    return "\n".join(lines)


def verify_all(sources: list[Source], root: Path) -> int:
    """Prints the table of what is there; 1 if anything is wrong."""
    rows, bad = [], 0
    for source in sources:
        if not (root / source.folder).exists():
            rows.append([source.name, *"-----", "-", f"not there: python scripts/prepare_data.py {source.name}"])
            bad += 1
            continue
        found = verify(source.name, root, source.pictures, source.classes)
        bad += not found.complete
        counts = [*found.pictures, len(found.missing), len(found.corrupt), found.extra]
        rows.append([source.name, *counts, found.reason()])
    print(tabulate(rows, ["dataset", "train", "val", "test", "missing", "corrupt", "extra", "verdict"]))
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names",
        nargs="*",
        help="datasets, or all; clip:NAME, open_clip:NAME, hf-hub:NAME: a backbone",
    )
    parser.add_argument(
        "--root", type=Path, default=from_project(os.environ.get("DATA"), "data"), help="folder of all data (default: "
        "DATA, or the project's data/)"
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="say what is known and what is there")
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched from where")
    parser.add_argument("--verify", action="store_true", help="look at every picture of what is there")
    parser.add_argument("--link", type=Path, metavar="DIR", help="use a copy that you have (one dataset)")
    parser.add_argument("--keep-downloads", action="store_true", help="do not remove archives after unpacking")
    parser.add_argument("--sources", type=Path, default=SOURCES, help="another sources file, for a mirror of your own")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds before a busy server is asked again")
    args = parser.parse_args()
    try:
        if not 0 <= args.pause <= 3600:
            raise ValueError(f"--pause is {args.pause}: use seconds from 0 to 3600")
        if args.root.exists() and not args.root.is_dir():
            raise ValueError(f"--root {args.root} is no folder")
        known = read_sources(args.sources)
        models = [choose_model(name) for name in args.names if name.startswith(MODELS)]
        args.names = [name for name in args.names if not name.startswith(MODELS)]
        if args.verify and models:
            raise ValueError(f"--verify looks at pictures, and {models[0].name} is a backbone: leave it out")
        every = ["all"] if args.dry_run and not models else []
        sources = choose(args.names or every, known, args.root, args.verify)
        if args.link and len(sources) != 1:
            raise ValueError("--link takes one dataset: python scripts/prepare_data.py imagenet --link DIR")
        if args.link and not args.link.is_dir():
            raise ValueError(f"--link {args.link} is no folder")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.verify:
        return verify_all(sources, args.root)
    if args.dry_run or args.list:
        for model in models:
            print(f"{model.name}: {model.missing() or 'there'}")
    if args.list or args.dry_run or not (sources or models):
        planned = args.dry_run and not args.list
        print("\n".join(dry_run(s, args.root) for s in sources) if planned else listing(known, args.root))
        return 0
    options = Options(args.root, args.link, args.keep_downloads, args.pause)
    try:
        failed = [model.name for model in models if not one_model(model)]
        failed += [source.name for source in sources if not one(source, options)]
    except KeyboardInterrupt:
        print("stopped: the same command continues", file=sys.stderr)
        raise
    return 1 if failed else 0


def choose(names: list[str], known: dict[str, Source], root: Path, present: bool) -> list[Source]:
    """The datasets meant by `names`; without names, those that are there if `present`, or none. Raises ValueError."""
    if present and not names:
        return [s for s in known.values() if (root / s.folder).exists()]
    for name in names:
        if name not in known and name != "all":
            hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
            raise ValueError(f'dataset "{name}" is unknown{hint}')
    return list(known.values()) if "all" in names else [known[name] for name in dict.fromkeys(names)]


def choose_model(word: str) -> Any:
    """The backbone that clip:NAME, open_clip:NAME or hf-hub:NAME means. Raises ValueError for an unknown name."""
    from trainers.core.clip.backbones import source_of  # imports torch
    from trainers.core.clip.backbones.weights import published

    name = word.removeprefix("clip:")
    if name != word and name not in published():
        raise ValueError(
            f'CLIP "{name}" is unknown{did_you_mean(name, published()) or ";"} known: {", ".join(published())}'
        )
    source = source_of(name)
    source.missing()  # raises for a name that means nothing
    return source


def one_model(model: Any) -> bool:
    """Fetches a backbone and says what came of it."""
    try:
        print(f"{model.name}: {model.fetch()} is ready")
    except (OSError, ValueError) as error:
        print(f"error: {model.name}: {error}", file=sys.stderr)
        return False
    return True


def one(source: Source, options: Options) -> bool:
    """Prepares one dataset and says what came of it."""
    folder = options.root / source.folder
    if source.complete(options.root):
        print(f"{source.name}: {folder} is there already: left alone (--verify looks at every picture)")
        return True
    try:
        print(f"{source.name}: {prepare(source, options)} is ready")
    except (InUseError, PrepareError, FetchError, UnpackError, OSError, ValueError) as error:
        print(f"error: {source.name}: {error}", file=sys.stderr)
        return False
    return True
