"""Finds runs below a folder and says what each measured: ours, and those that CoOp, CoCoOp, LASP or MaPLe wrote.

Ours say themselves what they are (run.json) and count as finished when results.json is there. Others have only log.txt (and
time-stamped siblings): the last one with a result counts, and path and log tell what it is. What cannot be read, or
contradicts itself, is named and left out, never guessed.
"""

import json
import os
import re
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.catalog import group, registry_names
from trainers.core.identity import Identity
from trainers.core.results import PERCENTAGES, check_counts, read_results

PROTOCOLS = ("fewshot", "base2new", "xd", "dg", "ablation")
_LARGEST_READ = 2**20  # bytes from either end of a log
_LONGEST_LINE = 2000  # characters
FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass
class Run:
    """One finished or unfinished run. `part` is base or new, the tested dataset or style, or empty.

    seed and shots are None for a method that draws no training pictures.
    """

    protocol: str
    dataset: str
    method: str
    config: str
    shots: int | None
    seed: int | None
    part: str
    file: Path
    metrics: dict[str, float] = field(default_factory=dict)
    source: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    command: str = ""

    @property
    def finished(self) -> bool:
        return "accuracy" in self.metrics

    @property
    def place(self) -> tuple:
        """What cell it belongs to."""
        return self.protocol, self.dataset, self.method, self.config, self.shots, self.part, self.source

    @property
    def identity(self) -> Identity | None:
        record = self.details.get("identity") or self.details.get("config")
        return Identity.of(record) if record else None


@dataclass
class Tree:
    """All runs below a folder, and the files that could not be read, with the reason."""

    runs: list[Run]
    unreadable: dict[Path, str]


def collect(root: Path) -> Tree:
    """Reads every run below `root`. Raises FileNotFoundError if there is no such folder."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: give the folder that holds the runs")
    return collect_runs((Path(folder) for folder, _, _ in _walk(root)), root)


def _walk(root: Path) -> Iterable[tuple[str, list[str], list[str]]]:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(d for d in subfolders if d not in ("tensorboard", "prompt_learner") and d[:1] != ".")
        yield folder, subfolders, files


def collect_runs(folders: Iterable[Path], root: Path) -> Tree:
    """Reads the runs in these folders; those that hold none are passed over."""
    tree = Tree([], {})
    for folder in folders:
        try:
            run = _run(root, folder)
        except FAULTS as error:
            named = next(
                (folder / n for n in ("results.json", "run.json") if (folder / n).exists()), folder / "log.txt"
            )
            tree.unreadable[named] = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            continue
        if run is not None:
            tree.runs.append(run)
    _tell_apart(tree.runs)
    _refuse_twins(tree)
    return tree


def _refuse_twins(tree: Tree) -> None:
    """A seed counts once: of two finished runs for the same place in a table, the first is kept and the other named."""
    seen: dict[tuple, Run] = {}
    for run in list(tree.runs):
        first = seen.setdefault((*run.place, run.seed), run)
        if run.finished and not first.finished:
            seen[*run.place, run.seed] = run
        elif run.finished and first is not run:
            tree.runs.remove(run)
            tree.unreadable[run.file] = f"a second run for the place of {first.file}"


# --- one run ------------------------------------------------------------------------------------------------------------


def _run(root: Path, folder: Path) -> Run | None:
    """The run in `folder`, or None where there is none. Raises one of FAULTS for what cannot be believed."""
    logs = sorted((p for p in folder.glob("log.txt*") if p.is_file()), key=lambda p: p.name) if folder.is_dir() else []
    about = _about(folder)
    results_file = folder / "results.json"
    if not logs and about is None and not results_file.exists():
        return None
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {}
    file, text = (logs[-1] if logs else folder), (read_log(logs[-1]) if logs else "")
    if results_file.exists():
        details, file = read_results(results_file), results_file
        metrics = {name: float(details[name]) for name in PERCENTAGES if name in details}
    elif about is None and not (folder / "config.json").is_file():  # somebody else's
        for log in reversed(logs):
            metrics = metrics_of_log(read_log(log))
            if metrics:
                file, text = log, read_log(log)
                break
    run = _described(about) if about else _guessed(_parts(root, folder), text, details)
    if run is None:
        raise ValueError("neither its path nor its text tells dataset and method")
    run.file, run.metrics, run.details = file, metrics, progress_of_log(text) | details
    if run.seed is not None and details.get("seed", run.seed) not in (run.seed, None):
        raise ValueError(f"it stands at seed {run.seed}, but its model was trained with seed {details['seed']}")
    if details.get("asked", {}).get("split") == "val":
        run.config += " on validation"
    return run


def _about(folder: Path) -> dict[str, Any] | None:
    """What run.json says of a run that scripts/run.py started; None where it says nothing."""
    file = folder / "run.json"
    if not file.is_file():
        return None
    found = json.loads(file.read_bytes()[: 2**24])
    if not isinstance(found, dict) or "protocol" not in found:
        return None
    for name in ("protocol", "part", "source", "dataset", "trainer", "config", "tag", "command"):
        if not isinstance(found.get(name), str):
            raise ValueError(f"run.json: {name} is {str(found.get(name))[:40]}, which is no text")
    for name in ("shots", "seed"):
        if found.get(name) is not None and type(found[name]) is not int:
            raise ValueError(f"run.json: {name} is {str(found[name])[:40]}, which is no whole number")
    if found["protocol"] not in PROTOCOLS:
        raise ValueError(f'run.json: protocol "{found["protocol"][:40]}" is unknown')
    return found


def _described(about: dict[str, Any]) -> Run:
    config = f"{about['config']} {about['tag']}".strip()
    return Run(about["protocol"], about["dataset"], about["trainer"], config, about["shots"], about["seed"],
               about["part"], Path(), source=about["source"], command=about["command"])  # fmt: skip


def _parts(root: Path, folder: Path) -> tuple[str, ...]:
    parts = folder.relative_to(root).parts if folder.is_relative_to(root) and folder != root else ()
    return (root.name, *parts) if root.name not in ("", ".") else parts


def _guessed(parts: tuple[str, ...], text: str, details: dict[str, Any]) -> Run | None:
    """Dataset, method, config, shots, seed and protocol, from the path first and the log's own words second."""
    names = registry_names()
    shots = next(
        (int(m[1]) for p in parts if (m := re.search(r"(?:shots_|_)(\d{1,9})(?:shots)?$", p)) and "shots" in p), 16
    )
    seed_at = next((i for i, p in reversed(list(enumerate(parts))) if re.fullmatch(r"seed\d{1,18}\w*", p)), None)
    seed = int(re.sub(r"\D.*", "", parts[seed_at][4:])) if seed_at is not None else int(details.get("seed") or 0)
    named = re.search(r"^Loading dataset: (\w{1,80})", text, re.MULTILINE)
    dataset = next((p for p in reversed(parts) if p in names.values()), None)
    if dataset is None and named:
        dataset = names.get(named[1], named[1])
    if dataset is None and details.get("dataset"):
        dataset = names.get(details["dataset"], details["dataset"])
    trainer = re.search(r"^(?:Loading trainer: |trainer: )(\w{1,80})", text, re.MULTILINE)
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
        return ("dg" if dataset in group("variants") else "xd"), dataset, "imagenet"
    return "fewshot", "", ""


# --- logs ---------------------------------------------------------------------------------------------------------------


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


def metrics_of_log(text: str) -> dict[str, float]:
    """What the log's evaluation on the test set measured, if training that began also ended; empty if it did not.

    Raises ValueError when figures contradict each other, or when the log holds the results of more than one run.
    """
    if "epoch [" in text and "Finish training" not in text:
        return {}
    found: list[dict[str, float]] = []
    on_test, block = True, None  # type: bool, dict[str, float] | None
    for line in text.splitlines():
        line = line[:_LONGEST_LINE]
        if line.startswith("Evaluate on the *"):
            on_test, block = "*test*" in line, None
        elif line.startswith("=> result"):
            block = {}
            if on_test:
                found.append(block)
        elif block is not None and (
            m := re.match(r"\* (total|correct|accuracy|error|macro_f1): ([\d.,]{1,30})%?\s*$", line)
        ):
            block[m[1]] = _figure(m[2])
            block[f"{m[1]} digits"] = len(m[2].partition(".")[2])
    found = [b for b in found if "accuracy" in b]
    for block in found:
        _check_block(block)
    if any(b != found[0] for b in found[1:]):
        raise ValueError("it holds the results of more than one evaluation on the test set")
    if not found:
        return {}
    names = {"accuracy": "accuracy", "error": "error_rate", "macro_f1": "macro_f1"}
    return {names[name]: value for name, value in found[0].items() if name in names}


def _figure(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        raise ValueError(f"{text[:40]} is no number") from None


def _check_block(block: dict[str, float]) -> None:
    for name in ("accuracy", "error", "macro_f1"):
        if not 0 <= block.get(name, 0) <= 100:
            raise ValueError(f"{name} is {block[name]:g}, which is no percentage")
    rounding = 0.5 * 10 ** -block["accuracy digits"] + 1e-6
    if "total" in block and "correct" in block:
        check_counts(block["accuracy"], int(block["total"]), int(block["correct"]), rounding)
    if "error" in block and abs(block["accuracy"] + block["error"] - 100) > 2 * rounding:
        raise ValueError(f"accuracy {block['accuracy']:g} and error {block['error']:g} do not make 100")


def epochs_of_log(text: str) -> Iterable[dict[str, str]]:
    """The figures of every line that tells of a step: epoch, epochs, loss, mean loss, lr, eta, as they are printed."""
    for line in text.splitlines():
        if not line.startswith("epoch [") or len(line) > _LONGEST_LINE:
            continue
        m = re.match(r"epoch \[(\d{1,9})/(\d{1,9})\] batch", line)
        words = line.split()
        if m is None or "loss" not in words or "eta" not in words[:-1]:
            continue
        at = words.index("loss")
        mean = words[at + 2].strip("()") if len(words) > at + 2 else ""
        rate = words[words.index("lr") + 1] if "lr" in words[:-1] else ""
        yield {"epoch": m[1], "epochs": m[2], "loss": words[at + 1], "mean": mean, "lr": rate,
               "eta": words[words.index("eta") + 1]}  # fmt: skip


def progress_of_log(text: str) -> dict[str, Any]:
    """How far a run has come, by its log: the last printed step, and whether it evaluates."""
    last = next(iter(deque(epochs_of_log(text), maxlen=1)), None)
    found: dict[str, Any] = {}
    if last:
        found = {
            "epoch": int(last["epoch"]),
            "max_epoch": int(last["epochs"]),
            "loss": last["loss"],
            "eta": last["eta"],
        }
    if text.rfind("Evaluate on the *") > text.rfind("\nepoch ["):
        found["evaluates"] = True
    return found


# --- cells --------------------------------------------------------------------------------------------------------------


def _tell_apart(runs: list[Run]) -> None:
    """Seeds of one cell whose runs differ in more than the seed get configs of their own, which say in what."""
    cells: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        if run.finished and run.identity is not None:
            cells[run.place].append(run)
    for own in cells.values():
        kinds: list[Run] = []
        for run in own:
            like = next((k for k in kinds if not _differences(run, k)), None)
            if like is None:
                kinds.append(run)
        if len(kinds) > 1:
            names = {id(k): _what_is_special(k, kinds) for k in kinds}
            for run in own:
                like = next(k for k in kinds if not _differences(run, k))
                run.details["apart"] = names[id(like)]
    for run in runs:
        if run.details.get("apart"):
            run.config = f"{run.config}: {run.details['apart']}"


def _differences(a: Run, b: Run) -> list[str]:
    ours, theirs = a.identity, b.identity
    if ours is None or theirs is None or a is b:
        return []
    apart_from = ("SEED", "train", "val")
    found = ours.differences(_without_model(theirs), apart_from) if len(ours.settings) >= len(theirs.settings) else (
        theirs.differences(_without_model(ours), apart_from))  # fmt: skip
    return found


def _without_model(identity: Identity) -> Identity:
    """Each seed evaluates a model of its own."""
    return Identity(identity.settings, identity.backbone_sha256, identity.data, "", identity.templates)


def _what_is_special(run: Run, kinds: list[Run]) -> str:
    settings = run.identity.settings if run.identity else {}
    others = [k.identity.settings for k in kinds if k.identity and k is not run]
    keys = sorted(
        k for k in settings if k != "SEED" and any(other.get(k, settings[k]) != settings[k] for other in others)
    )
    shown = ", ".join(f"{key} {settings[key]}" for key in keys[:3])
    digest = run.identity.digest()[:6] if run.identity else ""
    return shown or f"other data or backbone ({digest})"
