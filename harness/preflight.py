"""Checks before a protocol starts: settings, folders that hold other runs, backbones, data."""

import contextlib
import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import train
from harness.plan import Job
from trainers.core.runs.folder import RunFolder
from trainers.core.runs.identity import Identity, material_settings
from trainers.core.settings.idle import why_idle
from trainers.methods import methods


class FoundFault(Exception):
    """Nothing was started, for the reason given; `status` is the exit status."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


def check_settings(runs: list[Job], given: list[str]) -> dict[Path, Any]:
    """The configuration of every run. given: KEY value ... that a user gave to all of them.

    A setting that affects only some runs (TRAINER.COOP.N_CTX, not LASP) is removed from the others' arguments. Raises
    ValueError, in one line, for the first setting that is wrong or affects no run.
    """
    found = {}
    idle: dict[str, list[str]] = defaultdict(list)  # why a key does nothing in a run, one reason for each such run
    for run in runs:
        cfg = _configuration(run)
        reasons = {key: why_idle(key, cfg) for key in given[::2]}
        if any(reasons.values()):
            kept = [
                w for key, value in zip(given[::2], given[1::2], strict=True) if not reasons[key] for w in (key, value)
            ]
            start = next(i for i in range(len(run.arguments)) if run.arguments[i : i + len(given)] == given)
            run.arguments[start : start + len(given)] = kept
            cfg = _configuration(run)
        found[run.folder] = cfg
        for key, reason in reasons.items():
            idle[key] += [reason] if reason else []
    for reasons_of_runs in idle.values():
        if len(reasons_of_runs) == len(runs):
            raise ValueError(reasons_of_runs[0])
    return found


def _configuration(run: Job) -> Any:
    return train.setup_cfg(train.parse_arguments(run.arguments))


def check_folders(runs: list[Job], configurations: dict[Path, Any]) -> None:
    """Raises FoundFault (status 2) when a run's folder holds a run of other settings: nothing is mixed or skipped."""
    others = {}
    for run in runs:
        cfg = configurations[run.folder]
        ours = Identity(material_settings(cfg, methods()[cfg.TRAINER.NAME]))
        theirs = RunFolder(run.folder).identity()
        differing = ours.differences(Identity(theirs.settings)) if theirs else []
        if differing:
            others[run.folder] = differing
    _refuse(others)


def _refuse(others: dict[Path, list[str]]) -> None:
    if not others:
        return
    folder, differing = next(iter(others.items()))
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    shown = "; ".join(differing[:4]) + ("; ..." if len(differing) > 4 else "")
    raise FoundFault(
        f"{folder}{more} holds another run: {shown}. To keep both, start again with TAG=name or another OUTPUT=folder",
        2,
    )


def check_inputs(runs: list[Job], configurations: dict[Path, Any]) -> None:
    """Looks for backbones and data, and whether what is finished was made with them.

    Raises FoundFault: status 1 when something is missing, 2 when a finished run had other pictures or another backbone.
    """
    # here, since these import torch, and what was wrong with the words has been said before
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY
    from dassl.utils import set_random_seed

    import datasets
    from trainers.core.clip.backbones import source_of
    from trainers.methods import register_all

    register_all()
    datasets.register_all()
    for name in dict.fromkeys(cfg.MODEL.BACKBONE.NAME for cfg in configurations.values()):
        try:
            source_of(name).digest()
        except (OSError, ValueError) as error:
            raise FoundFault(str(error), 1) from None
    _check_data(runs, configurations, DATASET_REGISTRY)
    _look_at_own_pictures([configurations[run.folder] for run in runs if not run.finished])
    others = {}
    for run in runs:
        folder, cfg = RunFolder(run.folder), configurations[run.folder]
        if not folder.begun() or (run.needs is not None and not run.needs.finished):
            continue
        try:
            model = train.model_digest(train.parse_arguments(run.arguments)) if run.needs else ""
        except (OSError, ValueError):
            continue  # train.py will say what is wrong with the trained model
        set_random_seed(cfg.SEED)
        kind: Any = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
        with contextlib.redirect_stdout(io.StringIO()):
            ours = kind.run_identity(cfg, model)
        theirs = folder.identity()
        folder.results()  # raises where the figures contradict each other
        if theirs is not None and theirs.left_unsaid():
            print(f"Note: {run.folder} {theirs.left_unsaid()}")
        differing = ours.differences(theirs) if theirs else []
        if differing:
            others[run.folder] = differing
    _refuse(others)


def _look_at_own_pictures(configurations: list[Any]) -> None:
    """Says what people's own pictures are. Raises FoundFault for classes whose names their backbone cannot tell apart."""
    from dassl.data.datasets import build_dataset

    from harness.found import found
    from trainers.core.clip.backbones import load_backbone
    from trainers.core.clip.prompts import refuse_alike

    read, told = set(), set()
    for cfg in configurations:
        reads_names = methods()[cfg.TRAINER.NAME].reads_names
        pictures = (cfg.DATASET.FOLDER, cfg.DATASET.SPLIT_FILE, cfg.DATASET.NAMES_FILE)
        what = (cfg.MODEL.BACKBONE.NAME, reads_names, cfg.SEED if cfg.DATASET.FOLDS else 0, *pictures)
        if cfg.DATASET.NAME != "FolderDataset" or what in read:
            continue
        read.add(what)
        whole = cfg.clone()
        whole.defrost()
        whole.DATASET.NUM_SHOTS, whole.DATASET.SUBSAMPLE_CLASSES = -1, "all"
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                dataset = build_dataset(whole)
            backbone = load_backbone(cfg.MODEL.BACKBONE.NAME)
            if reads_names:
                refuse_alike(dataset.classnames, backbone)
        except (OSError, ValueError) as error:
            raise FoundFault(str(error), 1) from None
        if pictures not in told:
            parts = {"train": dataset.train_x, "val": dataset.val or [], "test": dataset.test}
            print("\n".join(found(parts, backbone, cfg.DATASET.NUM_SHOTS)))
        told.add(pictures)


def _check_data(runs: list[Job], configurations: dict[Path, Any], registry: Any) -> None:
    missing: dict[str, str] = {}
    roots: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        cfg = configurations[run.folder]
        if run.dataset in missing:
            continue
        kind = registry.get(cfg.DATASET.NAME)
        absent = kind.missing(cfg) if hasattr(kind, "missing") else []
        if absent:
            missing[run.dataset] = absent[0]
            roots[cfg.DATASET.ROOT].append(kind.command_name or kind.folder or run.dataset)
    if missing:
        name, path = next(iter(missing.items()))
        others = f", and {len(missing) - 1} more datasets are not there" if len(missing) > 1 else ""
        root, names = next(iter(roots.items()))
        command = f"python scripts/prepare_data.py {' '.join(dict.fromkeys(names))} --root {root}"
        raise FoundFault(f"dataset {name}: {path} is missing{others}: {command}", 1)
