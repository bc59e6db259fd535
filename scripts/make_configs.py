"""Writes the flat recipes configs/trainers/<Method>/<name>.yaml from configs/trainers.yaml, where each thing is said once.

python scripts/make_configs.py            write them
python scripts/make_configs.py --check    exit status 1 if one of them is not what it should be
"""

import argparse
import sys
from typing import Any

import yaml

from trainers.core.settings import ROOT

SOURCE = ROOT / "configs" / "trainers.yaml"


def recipes() -> dict[str, str]:
    """Path below configs/trainers -> the text of the file."""
    source = yaml.safe_load(SOURCE.read_text())
    made = {}
    for name, own in source["recipes"].items():
        about, family = own.pop("about"), own.pop("family")
        method = name.split("/")[0]
        settings = {**source["shared"], **source["families"][family], **source["methods"][method], **own}
        made[f"{name}.yaml"] = f"# {about} Made from configs/trainers.yaml.\n{_nested(settings)}"
    return made


def _nested(settings: dict[str, Any]) -> str:
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return "\n".join(
        yaml.safe_dump({part: tree[part]}, default_flow_style=None, sort_keys=True, width=110) for part in sorted(tree)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    folder = ROOT / "configs" / "trainers"
    made = recipes()
    present = {str(path.relative_to(folder)) for path in folder.glob("*/*.yaml")}
    wrong = sorted(present ^ made.keys())
    wrong += [name for name, text in made.items() if name in present and (folder / name).read_text() != text]
    if check:
        for name in wrong:
            print(f"configs/trainers/{name} is not what configs/trainers.yaml says: python scripts/make_configs.py")
        return 1 if wrong else 0
    for name, text in made.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
