"""Finds runs below a folder and says what each measured: ours, and those that CoOp, CoCoOp, LASP or MaPLe wrote.

Ours count as finished when results.json is there. Others have only log.txt (and time-stamped siblings): the last one
with a result counts. What cannot be read is named and left out, never guessed.
"""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REGISTRY_NAMES = {
    "ImageNet": "imagenet", "Caltech101": "caltech101", "OxfordPets": "oxford_pets", "StanfordCars": "stanford_cars",
    "OxfordFlowers": "oxford_flowers", "Food101": "food101", "FGVCAircraft": "fgvc_aircraft", "SUN397": "sun397",
    "DescribableTextures": "dtd", "EuroSAT": "eurosat", "UCF101": "ucf101", "ImageNetV2": "imagenetv2",
    "ImageNetSketch": "imagenet_sketch", "ImageNetA": "imagenet_a", "ImageNetR": "imagenet_r", "StyledShapes": "demo",
    "QuickDraw": "quickdraw", "CIFAR10Photos": "cifar10",
}  # fmt: skip
DATASETS = list(REGISTRY_NAMES.values())
BENCHMARKS = DATASETS[:11]
VARIANTS = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
PROTOCOLS = ("fewshot", "base2new", "xd", "dg", "ablation")
_LARGEST_READ = 2**20  # bytes from either end of a log

_METRIC = re.compile(r"^\* (accuracy|error|macro_f1): ([0-9.eE+-]+)%", re.MULTILINE)
_EPOCH = re.compile(r"^epoch \[(\d+)/(\d+)\].*?loss (\S+) .*?eta (\S+)", re.MULTILINE)


@dataclass
class Run:
    """One finished or unfinished run. `part` is base or new, the tested dataset or style, or empty."""

    protocol: str
    dataset: str
    method: str
    config: str
    shots: int
    seed: int
    part: str
    file: Path
    metrics: dict[str, float] = field(default_factory=dict)
    source: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return "accuracy" in self.metrics


@dataclass
class Tree:
    """All runs below a folder, and the files that could not be read, with the reason."""

    runs: list[Run]
    unreadable: dict[Path, str]


def collect(root: Path) -> Tree:
    """Reads every run below `root`. Raises FileNotFoundError if there is no such folder."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: give the folder that holds the runs")
    runs, unreadable = [], {}
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(d for d in subfolders if d not in ("tensorboard", "prompt_learner") and d[:1] != ".")
        logs = sorted((Path(folder) / f for f in files if f.startswith("log.txt")), key=_age)
        ours = "config.json" in files
        if not logs and not ours and "results.json" not in files:
            continue
        try:
            run = _run(root, Path(folder), logs, ours)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            unreadable[Path(folder) / ("results.json" if "results.json" in files else "log.txt")] = str(error)
            continue
        if run is None:
            unreadable[logs[-1] if logs else Path(folder)] = "neither its path nor its text tells dataset and method"
        else:
            runs.append(run)
    return Tree(runs, unreadable)


def _age(path: Path) -> str:
    return path.name.removeprefix("log.txt")  # "" for the first log, then -YYYY-MM-DD-hh-mm-ss


def read_log(path: Path) -> str:
    """The text of a log; of a huge one the first and the last mebibyte."""
    with open(path, "rb") as file:
        head = file.read(_LARGEST_READ)
        file.seek(0, os.SEEK_END)
        rest = file.tell() - len(head)
        if rest > 0:
            file.seek(-min(rest, _LARGEST_READ), os.SEEK_END)
            head += b"\n" + file.read()
    return head.decode(errors="replace").replace("\r", "\n")


def _metrics_of_log(text: str) -> dict[str, float]:
    """The last result block, if training that began also ended."""
    at = text.rfind("=> result")
    if at < 0 or ("epoch [" in text and "Finish training" not in text):
        return {}
    return {name: float(value) for name, value in _METRIC.findall(text[at:])}


def _run(root: Path, folder: Path, logs: list[Path], ours: bool) -> Run | None:
    parts = folder.relative_to(root).parts if folder != root else ()
    parts = (root.name, *parts) if root.name not in ("", ".") else parts
    results_file = folder / "results.json"
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {}
    file = results_file
    text = read_log(logs[-1]) if logs else ""
    if results_file.is_file():
        details = json.loads(results_file.read_text())
        metrics = {k: float(details[k]) for k in ("accuracy", "error_rate", "macro_f1") if k in details}
        if "accuracy" not in metrics:
            raise ValueError("it has no accuracy")
    elif not ours:
        for log in reversed(logs):
            text = read_log(log)
            metrics = _metrics_of_log(text)
            if metrics:
                file = log
                break
    if not metrics:
        file = logs[-1] if logs else folder
    run = _describe(parts, text, details)
    if run is None:
        return None
    run.file, run.metrics = file, metrics
    progress = _EPOCH.findall(text)
    if progress:
        epoch, last, loss, eta = progress[-1]
        details = details | {"epoch": int(epoch), "max_epoch": int(last), "loss": loss, "eta": eta}
    run.details = details
    return run


def _describe(parts: tuple[str, ...], text: str, details: dict[str, Any]) -> Run | None:
    """Dataset, method, config, shots, seed and protocol, from the path first and the log's own words second."""
    shots = next(
        (int(m[1]) for p in parts if (m := re.search(r"(?:shots_|_)(\d+)(?:shots)?$", p)) and "shots" in p), 16
    )
    seed_at = next((i for i, p in reversed(list(enumerate(parts))) if re.fullmatch(r"seed\d+\w*", p)), None)
    seed = int(re.sub(r"\D.*", "", parts[seed_at][4:])) if seed_at is not None else int(details.get("seed", 0))
    named = re.search(r"^Loading dataset: (\w+)", text, re.MULTILINE)
    dataset = next((p for p in reversed(parts) if p in DATASETS), None)
    if dataset is None and named:
        dataset = REGISTRY_NAMES.get(named[1], named[1])
    if dataset is None and details.get("dataset"):
        dataset = REGISTRY_NAMES.get(details["dataset"], details["dataset"])
    trainer = re.search(r"^(?:Loading trainer: |trainer: )(\w+)", text, re.MULTILINE)
    method = details.get("trainer") or (trainer[1] if trainer else None) or _method_in(parts)
    if dataset is None or method is None:
        return None
    config = ""
    if method in parts:
        below = [p for p in parts[parts.index(method) + 1 :] if p != dataset and not re.fullmatch(r"seed\d+\w*", p)]
        config = re.sub(r"_\d+shots$", "", below[0]) if below else ""
        config = "/".join([config, *below[1:]]) if len(below) > 1 else config
    protocol, part, source = _protocol(parts, dataset)
    return Run(protocol, dataset, method, config, shots, seed, part, Path(), source=source)


def _method_in(parts: tuple[str, ...]) -> str | None:
    known = ("MoCoOp", "CoCoOp", "CoOp", "LASP", "MaPLe", "ZeroshotCLIP2", "ZeroshotCLIP", "LinearProbe", "IVLP", "VPT")
    return next((p for p in parts if p in known), None)


def _protocol(parts: tuple[str, ...], dataset: str) -> tuple[str, str, str]:
    """(protocol, part, source) by the folders' names."""
    for p in parts:
        if p in ("train_base", "test_base"):
            return "base2new", "base", ""
        if p == "test_new":
            return "base2new", "new", ""
    for protocol in ("xd", "dg"):
        if protocol in parts:
            below = parts[parts.index(protocol) + 1 :]
            source = next((p[5:] for p in below if p.startswith("from_")), "imagenet")
            style = next((p[5:] for p in below if p.startswith("test_")), "")
            return protocol, style or dataset, source
    if "ablation" in parts[:-1]:
        return "ablation", parts[parts.index("ablation") + 1], ""
    if "evaluation" in parts:
        return ("dg" if dataset in VARIANTS else "xd"), dataset, "imagenet"
    return "fewshot", "", ""
