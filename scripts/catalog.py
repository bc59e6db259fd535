"""The methods and datasets there are, by configs/recipes.yaml, configs/benchmarks.yaml, configs/datasets/."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainers.core.errors import did_you_mean
from trainers.core.settings import ROOT


@dataclass(frozen=True)
class Recipe:
    """A method, as configs/recipes.yaml has it."""

    name: str
    trainer: str
    title: str
    folder: str
    trains: bool
    draws: bool
    configs: dict[str, Any]

    def config_for(self, dataset: str, protocol: str, shots: int) -> str:
        """The published config for this dataset, its group, protocol or number of shots."""
        own = self.configs
        choice: Any = next(own[key] for key in (f"{dataset}/{protocol}", dataset, *_groups_of(dataset), protocol, "default")
                           if key in own)  # fmt: skip
        return str(choice.get(shots, choice["default"]) if isinstance(choice, dict) else choice)


@functools.cache
def recipes() -> dict[str, Recipe]:
    found = yaml.safe_load((ROOT / "configs" / "recipes.yaml").read_text())
    return {name: Recipe(name, **entry) for name, entry in found.items()}


def recipe(name: str) -> Recipe:
    """Raises ValueError, with the nearest name, for an unknown one."""
    if name not in recipes():
        hint = did_you_mean(name, recipes()) or ";"
        raise ValueError(f'method "{name}" is unknown{hint} known: {", ".join(sorted(recipes()))}')
    return recipes()[name]


@functools.cache
def _groups() -> dict[str, dict[str, str]]:
    return yaml.safe_load((ROOT / "configs" / "benchmarks.yaml").read_text())


def _groups_of(dataset: str) -> list[str]:
    """The words that stand for a dataset among others, in configs/recipes.yaml; its variants' go with it."""
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
    return next((r.title for r in recipes().values() if r.trainer == trainer), trainer)


def trainers_in_order() -> list[str]:
    return [r.trainer for r in recipes().values()]


def existing(path: str) -> str:
    """`path` below the project, if it is there. Raises ValueError with the nearest name."""
    file = ROOT / path
    if not file.is_file():
        known = sorted(p.stem for p in file.parent.glob("*.yaml"))
        hint = did_you_mean(file.stem, known) or f"; known: {', '.join(known)}"
        raise ValueError(f'there is no "{file.stem}" in {Path(path).parent}{hint}')
    return path
