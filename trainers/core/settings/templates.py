"""What configs/templates/ says of a dataset."""

from typing import Any

import yaml

from ...paths import ROOT
from .errors import did_you_mean


def from_template_file(file: str, dataset: str) -> Any:
    """What configs/templates/`file` says of a dataset, by registry name. Raises ValueError if it says nothing."""
    known = yaml.safe_load((ROOT / "configs" / "templates" / file).read_text())
    if dataset not in known:
        hint = did_you_mean(dataset, known)
        raise ValueError(f"configs/templates/{file} has no templates for dataset {dataset}{hint} Add them there")
    return known[dataset]


def template_groups(dataset: str) -> list[list[str]]:
    """The template groups of a dataset, by registry name."""
    return from_template_file("template_groups.yaml", dataset)
