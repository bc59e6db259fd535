"""Finds runs below a folder and says what each measured: ours, and those that CoOp, CoCoOp, LASP or MaPLe wrote.

Runs of this project describe themselves (run.json) and are finished when results.json exists. Others have only log.txt
(and time-stamped siblings). The last log with a result counts, and path and log identify the run. Files that cannot be
read or contradict themselves are named and left out, never guessed.
"""

import json
import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.catalog import dataset_title, datasets_in_order, draws, group, registry_names
from trainers.core.runs.identity import Identity
from trainers.core.runs.results import PERCENTAGES, check_counts, read_results
from trainers.methods import methods

PROTOCOLS = ("fewshot", "base2new", "xd", "dg", "ablation")
_LARGEST_READ = 2**20  # bytes from either end of a log
_LONGEST_LINE = 2000  # characters
_DEEPEST = 30  # folders
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
    identity: Identity | None = None
    on: str = ""  # its backbone, where that is not the one of most runs of its protocol
    apart: str = ""  # how it differs from other runs of its place, if in more than the seed

    @property
    def finished(self) -> bool:
        return "accuracy" in self.metrics

    @property
    def variant(self) -> str:
        """Its config, and what else tells its column from others."""
        return ": ".join(filter(None, (self.config, self.on, self.apart)))

    @property
    def place(self) -> tuple:
        """What cell it belongs to."""
        return self.protocol, self.dataset, self.method, self.variant, self.shots, self.part, self.source

    @property
    def validated(self) -> bool:
        """Whether it was measured on validation pictures."""
        settings = self.identity.settings if self.identity else {}
        return "val" in (self.details.get("asked", {}).get("split"), settings.get("TEST.SPLIT"))


@dataclass
class Tree:
    """All runs below a folder, and the files that could not be read, with the reason."""

    runs: list[Run]
    unreadable: dict[Path, str]


def collect(root: Path) -> Tree:
    """Reads every run below `root`. Raises FileNotFoundError if there is no such folder."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: give the folder that holds the runs")
    return collect_runs(_walk(root), root)


def _walk(root: Path) -> Iterator[Path]:
    """`root` and the folders below it, to a depth that no tree of runs has; links are not followed."""
    stack = [(root, 0)]
    while stack:
        folder, depth = stack.pop()
        yield folder
        try:
            with os.scandir(folder) as entries:
                below = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # _run names it, if there is anything to name
        skipped = ("tensorboard", "prompt_learner")
        if depth < _DEEPEST:
            stack += [
                (folder / name, depth + 1)
                for name in sorted(below, reverse=True)
                if name not in skipped and name[0] != "."
            ]


def collect_runs(folders: Iterable[Path], root: Path) -> Tree:
    """Reads the runs in these folders; those that hold none are passed over."""
    tree = Tree([], {})
    for folder in folders:
        try:
            run = _run(root, folder)
        except FAULTS as error:
            named = next((folder / n for n in ("results.json", "run.json") if os.path.lexists(folder / n)), folder)
            tree.unreadable[named] = _shown(str(error).splitlines()[0][:300]) if str(error) else type(error).__name__
            continue
        if run is not None:
            tree.runs.append(run)
    _tell_datasets_apart(tree.runs)
    _tell_backbones_apart(tree.runs)
    _tell_apart(tree.runs)
    _refuse_twins(tree)
    return tree


def _refuse_twins(tree: Tree) -> None:
    """A seed counts once: of two finished runs for the same place in a table, the first is used and the other is
    reported."""
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
    """The run in `folder`, or None. Raises one of FAULTS if its results are not credible."""
    logs, about = logs_of(folder), _about(folder)
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
    by_log = {name: value for name, value in _settings_of_log(text).items() if name == "backbone"}
    run.file, run.metrics, run.details = file, metrics, progress_of_log(text) | by_log | details
    record = details.get("identity") or details.get("config")
    run.identity = Identity.of(record) if record else None
    if run.identity:
        run.identity.record()  # raises for what could not be compared later
    _hold_against_place(run, text)
    if run.validated:
        run.config += ON_VALIDATION
    if not draws(run.method):  # older runs of zero-shot CLIP have both
        run.shots = None
        if not (run.identity and run.identity.settings.get("DATASET.FOLDS")):
            run.seed = None
    if run.dataset not in datasets_in_order() and run.dataset in map(dataset_title, datasets_in_order()):
        run.dataset += " (as its log calls it)"  # or two datasets would stand under one name
    run.dataset, run.method, run.config, run.part, run.source = map(
        _shown, (run.dataset, run.method, run.config, run.part, run.source)
    )
    return run


def _shown(text: str) -> str:
    """`text` with what no terminal, file or table can show replaced."""
    return "".join(c if c.isprintable() and not 0xD800 <= ord(c) < 0xE000 and c != "|" else "?" for c in text)


def _hold_against_place(run: Run, text: str) -> None:
    """Raises ValueError if results or log do not match the folder they are in."""
    said = {"trainer": run.details.get("trainer"), "shots": run.details.get("shots"), "seed": run.details.get("seed"),
            "classes": run.details.get("subsample_classes")}  # fmt: skip
    dataset = run.details.get("dataset")
    names = registry_names()
    if dataset is not None:
        said["dataset"] = names.get(dataset, run.dataset if dataset == "FolderDataset" else dataset)
    if run.identity is None:  # a log of somebody else's
        known = _settings_of_log(text)
        said = {"seed": known.get("seed"), "shots": known.get("NUM_SHOTS"), "trainer": known.get("trainer"),
                "classes": known.get("SUBSAMPLE_CLASSES"),
                "dataset": names.get(known["dataset"], known["dataset"]) if "dataset" in known else None} | {
                    key: value for key, value in said.items() if value is not None}  # fmt: skip
    own = names.get("FolderDataset")
    place = {"trainer": run.method, "shots": run.shots, "seed": run.seed, "dataset": run.dataset,
             "classes": run.part if run.protocol == "base2new" else None}  # fmt: skip
    for name, here in place.items():
        there = said.get(name)
        if there is not None and here is not None and str(there) != str(here) and there != own:
            raise ValueError(f"it stands at {name} {here}, but says {name} {str(there)[:40]}")


def _settings_of_log(text: str) -> dict[str, str]:
    """What a log of Dassl's says of its run, in its arguments, its configuration and its first lines."""
    found: dict[str, str] = {}
    patterns = {
        "seed": r"^seed: (\d{1,60})$", "trainer": r"^Loading trainer: (\w{1,80})$",
        "dataset": r"^Loading dataset: (\w{1,80})$",
        "NUM_SHOTS": r"^ *NUM_SHOTS: (-1|\d{1,9})$", "SUBSAMPLE_CLASSES": r"^ *SUBSAMPLE_CLASSES: (\w{1,20})$",
        "backbone": r"^ *BACKBONE:\n *NAME: (\S{1,60})$",
    }  # fmt: skip
    for name, pattern in patterns.items():
        match = re.search(pattern, text, re.MULTILINE)
        if match:
            found[name] = match[1]
    if found.get("seed") == "0" and found.get("NUM_SHOTS") is None:
        del found["seed"]
    return found


def _about(folder: Path) -> dict[str, Any] | None:
    """What run.json says of a run that scripts/run.py started; None where it says nothing."""
    file = folder / "run.json"
    if not file.is_file():
        return None
    with open(file, "rb") as stream:
        found = json.loads(stream.read(2**20))
    if not isinstance(found, dict) or "protocol" not in found:
        return None
    for name in ("protocol", "part", "source", "dataset", "trainer", "config", "tag", "command"):
        if not isinstance(found.get(name), str):
            raise ValueError(f"run.json: {name} is {str(found.get(name))[:40]}, which is no text")
    for name in ("shots", "seed"):
        if found.get(name) is not None and (type(found[name]) is not int or not -1 <= found[name] < 2**32):
            raise ValueError(f"run.json: {name} is {str(found[name])[:40]}, which is no whole number")
    parts = {"fewshot": ("",), "base2new": ("base", "new", "joint")}.get(found["protocol"])
    if parts and found["part"] not in parts:
        raise ValueError(f'run.json: {found["protocol"]} has no part "{found["part"][:40]}"')
    if found["protocol"] not in PROTOCOLS:
        raise ValueError(f'run.json: protocol "{found["protocol"][:40]}" is unknown')
    return found


def _described(about: dict[str, Any]) -> Run:
    config = f"{about['config']} {about['tag']}".strip()
    return Run(about["protocol"], about["dataset"], about["trainer"], config, about["shots"], about["seed"],
               about["part"], Path(), source=about["source"], command=about["command"])  # fmt: skip


def _parts(root: Path, folder: Path) -> tuple[str, ...]:
    """The folders' names that may tell what run this is; those above `root` count too."""
    parts = folder.relative_to(root).parts if folder.is_relative_to(root) and folder != root else ()
    return (*root.resolve().parts[-8:], *parts)


def _guessed(parts: tuple[str, ...], text: str, details: dict[str, Any]) -> Run | None:
    """Dataset, method, config, shots, seed and protocol, from the path first and the log's own words second."""
    names = registry_names()
    by_path = (re.search(r"(?:shots_(all|\d{1,9})|(?:^|[_-])(\d{1,9})-?_?shots?)$", p) for p in reversed(parts))
    shots = next((-1 if m[1] == "all" else int(m[1] or m[2]) for m in by_path if m), None)
    if shots is None:
        shots = int(_settings_of_log(text).get("NUM_SHOTS", details.get("shots") or 16))
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
        config = "/".join([config, *below[1:]]).replace("/tag_", " ")  # as _described has a TAG
    protocol, part, source = _protocol(parts, dataset)
    return Run(protocol, dataset, method, config, shots, seed, part, Path(), source=source)


def _method_in(parts: tuple[str, ...]) -> str | None:
    known = {*methods(), "MaPLe", "IVLP", "VPT"}
    return next((p for p in parts if p in known), None)


def _protocol(parts: tuple[str, ...], dataset: str) -> tuple[str, str, str]:
    """(protocol, part, source) by the folders' names."""
    for p in parts:
        if p in ("train_base", "test_base"):
            return "base2new", "base", ""
        if p in ("test_new", "test_joint"):
            return "base2new", p.removeprefix("test_"), ""
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


ON_VALIDATION = " on validation"
GAP = "... (the middle of this log was not read)\n"


# --- logs ---------------------------------------------------------------------------------------------------------------


def logs_of(folder: Path) -> list[Path]:
    """The logs of a run, the newest last: one for each time that it was started."""
    return sorted((p for p in folder.glob("log.txt*") if p.is_file()), key=lambda p: p.name) if folder.is_dir() else []


def read_log(path: Path) -> str:
    """The text of a log; of a huge one the first and the last mebibyte, with GAP between. Raises OSError, as for a pipe."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    with open(path, "rb") as file:
        head = file.read(_LARGEST_READ)
        file.seek(0, os.SEEK_END)
        rest = file.tell() - len(head)
        file.seek(-min(rest, _LARGEST_READ), os.SEEK_END)
        tail = file.read(_LARGEST_READ) if rest > 0 else b""
    if rest > _LARGEST_READ:
        head, tail = head[: head.rfind(b"\n") + 1], tail[tail.find(b"\n") + 1 :]
        head += GAP.encode()
    return (head + tail).decode(errors="replace").replace("\r", "\n")


def metrics_of_log(text: str) -> dict[str, float]:
    """The metrics of the log's evaluation on the test set; empty if training began but did not finish.

    Raises ValueError when figures contradict each other, or when the log holds the results of more than one run.
    """
    if "epoch [" in text and "Finish training" not in text:
        return {}
    if GAP in text:
        text = text[text.index(GAP) :]  # text before it cannot be used, since the gap may hide lines
    found: list[dict[str, float]] = []
    on_test, block = True, None  # type: bool, dict[str, float] | None
    for line in text.split("\n"):
        line = line[:_LONGEST_LINE]
        if line.startswith(("Evaluate on the *", "Do evaluation on ")):
            on_test, block = "test" in line, None
        elif line.startswith("=> result"):
            block = {}
            if on_test:
                found.append(block)
        elif block is not None and (m := re.match(r"\* (total|correct|accuracy|error|macro_f1): (.*?)%?\s*$", line)):
            value = _figure(m[1], m[2])
            if block.get(m[1], value) != value:
                raise ValueError(f"it says two things of its {m[1]}")
            block[m[1]] = value
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


def _figure(name: str, text: str) -> float:
    """Counts as Dassl prints them, 1,234; percentages as 93.5."""
    pattern = r"\d{1,3}(,\d{3}){0,4}|\d{1,15}" if name in ("total", "correct") else r"\d{1,3}(\.\d{1,15})?"
    if not re.fullmatch(pattern, text):
        raise ValueError(f"its {name} is {text[:40]}, which is no number")
    return float(text.replace(",", ""))


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
    """The figures of every line that tells of a step: epoch, epochs, batch, loss, mean, lr, eta, as they are printed."""
    for line in text.split("\n"):
        if not line.startswith("epoch [") or len(line) > _LONGEST_LINE:
            continue
        m = re.match(r"epoch \[(\d{1,9})/(\d{1,9})\] batch(?: \[(\d{1,9}/\d{1,9})\])?", line)
        words = line.split()
        if m is None or "loss" not in words or "eta" not in words[:-1]:
            continue
        at = words.index("loss")
        mean = words[at + 2].strip("()") if len(words) > at + 2 else ""
        rate = words[words.index("lr") + 1] if "lr" in words[:-1] else ""
        yield {"epoch": m[1], "epochs": m[2], "batch": m[3] or "", "loss": words[at + 1], "mean": mean, "lr": rate,
               "eta": words[words.index("eta") + 1]}  # fmt: skip


def progress_of_log(text: str) -> dict[str, Any]:
    """How far a run has come, by its log: the last printed step, and whether it evaluates."""
    last = next(iter(deque(epochs_of_log(text), maxlen=1)), None)
    found: dict[str, Any] = {}
    if last:
        found = {
            "epoch": int(last["epoch"]),
            "max_epoch": int(last["epochs"]),
            "batch": last["batch"],
            "loss": _shown(last["loss"]),
            "eta": _shown(last["eta"]),
        }
    if text.rfind("Evaluate on the *") > text.rfind("\nepoch ["):
        found["evaluates"] = True
    return found


# --- cells --------------------------------------------------------------------------------------------------------------


def _tell_datasets_apart(runs: list[Run]) -> None:
    """People's own pictures are called after their folder or list, and two may be called alike: then their names say it."""
    of_name: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        folds = run.identity and run.identity.settings.get("DATASET.FOLDS")
        own = run.identity and run.identity.settings.get("DATASET.NAME") == "FolderDataset"
        if run.finished and run.identity and own and run.protocol == "fewshot" and not folds:
            of_name[run.dataset][run.identity.data.get("test", "")].append(run)
    for name, kinds in of_name.items():
        for digest, own_runs in kinds.items() if len(kinds) > 1 else ():
            for run in own_runs:
                run.dataset = f"{name} (pictures {digest[:6]})"


def _tell_backbones_apart(runs: list[Run]) -> None:
    """Methods stand beside each other in a protocol's table: a row with another backbone than most of its runs names it.
    An older version's run, which does not say its weights, has those that others of that name have."""
    protocols: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.finished and run.identity is not None:
            protocols[run.protocol].append(run)
    for own in protocols.values():
        of_name = {_backbone(run): _weights(run) for run in own if _weights(run)}
        weights = [_weights(run) or of_name.get(_backbone(run), "") or _backbone(run) for run in own]
        names = {sha256: _backbone(run) for sha256, run in zip(weights, own, strict=True)}  # the same may have two
        ((usual, _),) = Counter(weights).most_common(1)
        for run, sha256 in zip(own, weights, strict=True):
            name = names[sha256]
            if sha256 != usual:
                run.on = name if [*names.values()].count(name) == 1 else f"{name} {sha256[:6]}"


def _backbone(run: Run) -> str:
    return _shown(str(run.details.get("backbone", ""))[:80])


def _weights(run: Run) -> str:
    """SHA-256 of its backbone's weights, where it says so."""
    return (run.identity and run.identity.backbone_sha256) or str(run.details.get("backbone_sha256", ""))


def _tell_apart(runs: list[Run]) -> None:
    """Splits a column whose runs differ in more than its cells should: each kind of run gets its own name, which states
    the difference."""
    columns: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        if run.finished and run.identity is not None:
            columns[
                run.protocol, run.method, run.variant, run.source if run.protocol != "fewshot" else run.dataset
            ].append(run)
    for own in columns.values():
        kinds: list[list[Run]] = []
        by_digest: dict[str, list[Run]] = {}
        for run in own:
            digest = _of_the_column(run).digest()
            kind = by_digest.get(digest) or next((k for k in kinds if not any(_differ(run, r) for r in k)), None)
            if kind is None:
                kind = []
                kinds.append(kind)
            by_digest[digest] = kind
            kind.append(run)
        if len(kinds) < 2:
            continue
        names = [""] * len(kinds) if len(kinds) > 50 else [_what_is_special(k[0], [o[0] for o in kinds]) for k in kinds]
        for kind, name in zip(kinds, names, strict=True):
            unique = names.count(name) == 1
            for run in kind:
                run.apart = name if unique else f"{name} ({_of_the_column(kind[0]).digest()[:6]})".strip()


def _of_the_column(run: Run) -> Identity:
    """What all cells of a column share: not the seed, the part, the dataset that is tested, the pictures."""
    known = run.identity or Identity()
    cells = ("SEED", "DATASET.SUBSAMPLE_CLASSES", "DATASET.NUM_SHOTS", "DATASET.NAME", "DATASET.SOURCE_DOMAINS",
             "DATASET.TARGET_DOMAINS", "DATASET.TEMPLATE", "DATASET.TEMPLATE_GROUPS")  # fmt: skip
    changed = run.protocol == "ablation"  # each row changes a setting of the method
    settings = {
        k: v for k, v in known.settings.items() if k not in cells and not (changed and k.startswith("TRAINER."))
    }
    same_test = run.protocol == "fewshot" and not known.settings.get("DATASET.FOLDS")  # a seed tests on its own fold
    data = {"test": known.data["test"]} if same_test and "test" in known.data else {}
    return Identity(settings, known.backbone_sha256, data)


def _differ(a: Run, b: Run) -> bool:
    ours, theirs = _of_the_column(a), _of_the_column(b)
    return bool(ours.differences(theirs) or theirs.differences(ours))


def _what_is_special(run: Run, kinds: list[Run]) -> str:
    settings = _of_the_column(run).settings
    others = [_of_the_column(k).settings for k in kinds if k is not run]
    keys = sorted(k for k in settings if any(other.get(k, settings[k]) != settings[k] for other in others))
    shown = ", ".join(_shown(f"{key} {settings[key]}"[:80]) for key in keys[:3])
    return shown or f"other data ({_of_the_column(run).digest()[:6]})"
