"""The hard templates of a dataset: its configuration's own, or what configs/templates/ has for it."""

from typing import Any

import yaml
from yacs.config import CfgNode

from ...paths import ROOT
from .errors import did_you_mean


def from_template_file(file: str, entry: str, setting: str = "") -> Any:
    """What configs/templates/`file` has under `entry`. Raises ValueError, naming the setting that would do, if nothing."""
    known = yaml.safe_load((ROOT / "configs" / "templates" / file).read_text())
    if entry not in known:
        hint = did_you_mean(entry, known) or ":"
        raise ValueError(
            f"configs/templates/{file} has no templates for dataset {entry}{hint} set {setting} in its yaml, or add them"
        )
    return known[entry]


def template_of(cfg: CfgNode) -> str:
    """The template of a configuration's dataset, as zero-shot CLIP has it."""
    return cfg.DATASET.TEMPLATE or from_template_file("zeroshot.yaml", cfg.DATASET.NAME, "DATASET.TEMPLATE")


def template_groups(cfg: CfgNode) -> list[list[str]]:
    """The template groups of a configuration's dataset."""
    own = [list(group) for group in cfg.DATASET.TEMPLATE_GROUPS]
    return own or from_template_file("template_groups.yaml", cfg.DATASET.NAME, "DATASET.TEMPLATE_GROUPS")
