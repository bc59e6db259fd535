"""What a number used beyond the training shots and the names of the classes that are asked."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.catalog import config_for, group, method_title
from trainers.core.runs.identity import fingerprint
from trainers.methods import methods

from .collect import Run

NAMES = "the new classes' names, while training on the base classes"
PICTURES = "validation pictures, to choose by"
TESTED = "the test pictures themselves, to choose by"
TOLD = "being told at test whether the classes asked are those of training"
CONSTANTS = "settings chosen for each dataset"
SENTENCES = "texts of a language model"
SIGNS = {NAMES: "*", PICTURES: "†", TESTED: "‡", TOLD: "§", CONSTANTS: "¶", SENTENCES: "‖"}  # behind a method's title

Column = tuple[str, str, str]  # protocol, method, variant


def _column(run: Run) -> Column:
    return run.protocol, run.method, run.variant


def used(runs: Sequence[Run]) -> dict[Column, list[str]]:
    """What each column of a table used; a run that only evaluates used what its training run did."""
    chooses = {method.trainer for method in methods().values() if method.chooses_on_validation}
    told = {method.trainer for method in methods().values() if method.told_which_classes}
    nothing = fingerprint([], "")
    found: dict[Column, set[str]] = defaultdict(set)
    for run in runs:
        kinds = found[_column(run)]
        if not run.metrics:  # of an unfinished run nobody knows
            continue
        settings, data = (run.identity.settings, run.identity.data) if run.identity else ({}, {})
        asked_of_all = run.method == "LASP" and settings.get("DATASET.INCLUDE_ALL_CLASSES")
        names_of_all = run.details.get("text_classes") == "all" or asked_of_all
        if run.protocol == "base2new" and names_of_all:
            kinds.add(NAMES)
        is_told = run.method in told and _option(settings, "HEADS", "told") == "told"
        if is_told and run.protocol in ("base2new", "xd", "dg"):
            kinds.add(TOLD)
        if _has_settings_of_its_own(run, settings):
            kinds.add(CONSTANTS)
        if _option(settings, "SENTENCES", ""):
            kinds.add(SENTENCES)
        searched = _option(settings, "SEARCH_ON", "val")
        if searched == "test":
            kinds.add(TESTED)
        by_pictures = settings.get("TEST.FINAL_MODEL") == "best_val" or (run.method in chooses and searched == "val")
        if by_pictures and data.get("val", nothing) != nothing:
            kinds.add(PICTURES)
    return {column: sorted(kinds) for column, kinds in found.items()}


def _option(settings: Mapping[str, Any], name: str, usual: str) -> str:
    """A method's own, under whatever key."""
    return next((value for key, value in settings.items() if key.endswith(f".{name}")), usual)


def _has_settings_of_its_own(run: Run, settings: Mapping[str, Any]) -> bool:
    """Whether the authors chose options, or a recipe, for the dataset trained on; ImageNet's epochs do not count."""
    method, dataset = methods().get(run.method), run.source or run.dataset
    if method is None or dataset not in group("benchmarks"):
        return False
    if method.settings_by_dataset:
        theirs = [name for name, setting in method.options.settings().items() if setting.default is None]
        return any(settings.get(name) is None for name in theirs)
    asked = "main" if run.protocol == "fewshot" else run.protocol
    recipes = [config_for(method, name, asked, run.shots or 0) for name in (dataset, "")]
    return dataset != "imagenet" and recipes[0] != recipes[1] and run.config.partition(" ")[0] == recipes[0]


def signs(runs: Sequence[Run]) -> dict[Column, str]:
    """What stands behind a column's title."""
    return {
        column: "".join(sign for kind, sign in SIGNS.items() if kind in kinds) for column, kinds in used(runs).items()
    }


def legend(runs: Sequence[Run]) -> list[str]:
    """A note for the table of these runs: what was used, and by which methods; none if nothing was."""
    columns = used(runs)
    by_kind: dict[str, list[str]] = defaultdict(list)
    for (protocol, method, config), kinds in columns.items():
        beside = [own for (p, m, _), own in columns.items() if (p, m) == (protocol, method)]
        alone = all(own == kinds for own in beside)
        for kind in kinds:
            by_kind[kind].append(method_title(method) + ("" if alone else f" ({config.strip()})"))
    if not by_kind:
        return []
    in_order = [(kind, dict.fromkeys(by_kind[kind])) for kind in SIGNS if kind in by_kind]
    said = "; ".join(f"{SIGNS[kind]} {kind}: {', '.join(titles)}" for kind, titles in in_order)
    return [f"Used beyond the shots and the names of the classes asked: {said}."]


def strict(runs: Sequence[Run], shown_in: Callable[[Run], tuple[str, str]]) -> tuple[list[Run], list[str]]:
    """The runs that used no more than the shots and the names of the classes asked; a line for each column left out.

    shown_in: a run's protocol and its column there, which may hold several configs.
    """
    columns, whole = used(runs), defaultdict[tuple[str, str], set[str]](set)
    for run in runs:
        whole[shown_in(run)].update(columns[_column(run)])
    left_out = [
        f"{protocol}, {title}: used {' and '.join(sorted(kinds))}"
        for (protocol, title), kinds in whole.items()
        if kinds
    ]
    return [run for run in runs if not whole[shown_in(run)]], left_out
