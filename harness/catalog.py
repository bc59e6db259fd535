"""All methods and datasets, from their records and recipes, configs/benchmarks.yaml and configs/datasets/."""

import functools
from pathlib import Path
from typing import Any

import yaml

from trainers.core.settings.errors import did_you_mean
from trainers.core.settings.text_files import read_yaml
from trainers.methods import methods
from trainers.options import Method
from trainers.paths import ROOT


def method_named(name: str) -> Method:
    """The method that one types as `name`. Raises ValueError, with the nearest name, for an unknown one."""
    known = {method.name: method for method in methods().values()}
    if name not in known:
        hint = did_you_mean(name, known) or ";"
        raise ValueError(f'method "{name}" is unknown{hint} known: {", ".join(sorted(known))}')
    return known[name]


@functools.cache
def recipes_of(trainer: str) -> dict[str, Any]:
    """What recipes.yaml in the package of a trainer holds."""
    return read_yaml(ROOT / methods()[trainer].package.replace(".", "/") / "recipes.yaml")


def config_for(method: Method, dataset: str, protocol: str, shots: int) -> str:
    """The recipe that a method chooses for this dataset, its group, the protocol or the number of shots."""
    own = recipes_of(method.recipes_of)["choices"]
    choice: Any = next(own[key] for key in (f"{dataset}/{protocol}", dataset, *_groups_of(dataset), protocol, "default")
                       if key in own)  # fmt: skip
    return str(choice.get(shots, choice["default"]) if isinstance(choice, dict) else choice)


@functools.cache
def _groups() -> dict[str, dict[str, str]]:
    return yaml.safe_load((ROOT / "configs" / "benchmarks.yaml").read_text())


def _groups_of(dataset: str) -> list[str]:
    """The groups that contain a dataset, as named in a method's choices. A group of variants has its main group's
    name."""
    return [name.removesuffix("_variants") for name, members in _groups().items() if dataset in members]


def group(name: str) -> list[str]:
    """The datasets of a group: benchmarks, variants, small or small_variants."""
    return list(_groups()[name])


def datasets_in_order() -> list[str]:
    return [name for members in _groups().values() for name in members]


@functools.cache
def registry_names() -> dict[str, str]:
    """Registry name (DATASET.NAME) -> name of the file in configs/datasets/."""
    found = {}
    for file in sorted((ROOT / "configs" / "datasets").glob("*.yaml")):
        found[yaml.safe_load(file.read_text())["DATASET"]["NAME"]] = file.stem
    return found


def dataset_title(name: str) -> str:
    """What people call a dataset."""
    return next((members[name] for members in _groups().values() if name in members), name)


def method_title(trainer: str) -> str:
    """What people call a trainer."""
    return methods()[trainer].title if trainer in methods() else trainer


def draws(trainer: str) -> bool:
    """Whether it learns from pictures that are drawn: whether shots and seeds mean something to it."""
    return trainer not in methods() or methods()[trainer].draws


def existing(path: str) -> str:
    """`path` below the project, if it is there. Raises ValueError with the nearest name."""
    file = ROOT / path
    if not file.is_file():
        known = sorted(p.stem for p in file.parent.glob("*.yaml"))
        hint = did_you_mean(file.stem, known) or f"; known: {', '.join(known)}"
        raise ValueError(f'there is no "{file.stem}" in {Path(path).parent}{hint}')
    return path
