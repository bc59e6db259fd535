"""Writes the files that are generated from the methods' records, options and recipes (trainers/<method>/):

configs/trainers/<Method>/<name>.yaml, flat, as CoOp's own train.py reads them too; scripts/<method>/*.sh; docs/SETTINGS.md.

    python scripts/make_files.py            write them
    python scripts/make_files.py --check    exit status 1 if one of them is not what it should be
"""

import argparse
import re
from collections.abc import Iterator
from typing import Any

import yaml

from trainers.core.settings.configure import reference
from trainers.core.settings.text_files import read_yaml
from trainers.methods import methods
from trainers.options import Method
from trainers.paths import ROOT

from .catalog import recipes_of

USAGE = {
    "main": "Few-shot: main.sh <dataset>[,<dataset> ...] [shots] [config], seeds 1 2 3.",
    "base2new": "Base-to-new: base2new.sh [dataset[,dataset ...] [seed]]; without a dataset, all eleven.",
    "xd": "Cross-dataset: xd.sh [source [targets ...]]; without a source, ImageNet and the ten others.",
    "dg": "Domain generalisation: dg.sh [source [targets ...]]; without a source, ImageNet and its four variants.",
    "ablation": "What each part of the method does: ablation.sh [dataset [shots]], few-shot, seeds 1 2 3.",
}
# in every recipe and script that was made here; a user's own, beside them, are left alone
MARK = re.compile(r"^# .* Made from trainers/|^exec .*/scripts/run\.py\" ", re.MULTILINE)


def made_files() -> dict[str, str]:
    """Path below the project -> the text of the file."""
    made = {"docs/SETTINGS.md": reference() + "\n"}
    for method in methods().values():
        made |= dict(_scripts(method))
        if method.recipes_of == method.trainer:
            made |= dict(_recipes(method))
    return made


def _recipes(method: Method) -> Iterator[tuple[str, str]]:
    """A recipe has what all share, then its family's, its method's and its own settings."""
    shared, own = read_yaml(ROOT / "configs" / "recipes.yaml"), recipes_of(method.trainer)
    source = f"{method.package.replace('.', '/')}/recipes.yaml"
    for name, recipe in own["recipes"].items():
        settings = {key: value for key, value in recipe.items() if key not in ("about", "family")}
        settings = shared["shared"] | shared["families"][recipe["family"]] | (own.get("settings") or {}) | settings
        text = f"# {recipe['about']} Made from {source}.\n{nested_yaml(settings)}"
        yield f"configs/trainers/{method.trainer}/{name}.yaml", text


def nested_yaml(settings: dict[str, Any]) -> str:
    """Settings by full name as a yaml file has them."""
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


def _scripts(method: Method) -> Iterator[tuple[str, str]]:
    protocols = ["main", *(["base2new", "xd", "dg"] if method.knows_new_classes else [])]
    for protocol in [*protocols, *(["ablation"] if method.ablations else [])]:
        yield (
            f"scripts/{method.name}/{protocol}.sh",
            f"""#!/usr/bin/env bash
# {USAGE[protocol]}
# `bash scripts/{method.name}/{protocol}.sh --help` tells the options and the environment variables.
here="$(dirname "$0")/../.."
own="$here/.venv/bin/python"
[ -z "${{PYTHON:-}}${{VIRTUAL_ENV:-}}${{CONDA_PREFIX:-}}" ] && [ -x "$own" ] && PYTHON="$own"
exec "${{PYTHON:-python}}" "$here/scripts/run.py" {method.name} {protocol} "$@"
""",
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    made = made_files()
    there = [path for pattern in ("configs/trainers/*/*.yaml", "scripts/*/*.sh") for path in ROOT.glob(pattern)]
    present = {str(path.relative_to(ROOT)) for path in there if MARK.search(path.read_text(errors="replace"))}
    wrong = sorted(present - made.keys())
    wrong += [name for name, text in made.items() if not (ROOT / name).is_file() or (ROOT / name).read_text() != text]
    for name in wrong:
        if check:
            print(f"{name} is not what its source says: python scripts/make_files.py")
        elif name not in made:
            print(f"removing {name}, which nothing here makes any more")
            (ROOT / name).unlink()
        else:
            print(f"writing {name}")
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(made[name])
            if name.endswith(".sh"):
                (ROOT / name).chmod(0o755)
    return 1 if check and wrong else 0
