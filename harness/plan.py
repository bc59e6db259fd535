"""Plans a protocol: the runs that a user's command means, each a call of train.py with a description."""

import contextlib
import functools
import io
import json
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainers.core.settings.configure import configure, in_pairs
from trainers.core.settings.errors import did_you_mean
from trainers.core.settings.text_files import is_manifest
from trainers.methods import methods
from trainers.options import Method
from trainers.paths import ROOT, from_project

from .catalog import config_for, existing, group, method_named, registry_names

PROTOCOLS = ("main", "base2new", "xd", "dg", "ablation")
GROUPS = {"all": "benchmarks", "small": "small"}  # a word for many datasets -> their group
STYLES_SEEN = ["clean", "bright", "large", "small", "many"]
STYLES_UNSEEN = ["pixelated", "blurry", "dark", "cropped", "sketch"]
ALL = -1  # shots: every training picture

# settings that the words and options of a protocol stand for
SAID_OTHERWISE = {
    "SEED": "SEEDS", "OUTPUT_DIR": "OUTPUT", "RESUME": "OUTPUT", "DATASET.ROOT": "DATA", "DATASET.NUM_SHOTS": "SHOTS",
    "DATASET.NAME": "the dataset's name", "DATASET.FOLDER": "the folder's path in the place of a dataset's name",
    "DATASET.SUBSAMPLE_CLASSES": "the protocol", "DATASET.FOLDS": "--folds", "TRAINER.NAME": "the method",
}  # fmt: skip


@dataclass
class Job:
    """One call of train.py, and the run that has to be finished before it."""

    folder: Path
    arguments: list[str]
    needs: "Job | None" = None
    dataset: str = ""
    shots: int = 0
    status: str = field(default="waiting", compare=False)
    exit_status: int | None = field(default=None, compare=False)

    @property
    def kind(self) -> tuple[str, ...]:
        """Runs of one kind take about equally long: all arguments of train.py except seed and folders."""
        varying = ("--seed", "--output-dir", "--model-dir", "--about", "--same-as")
        words = zip(["", *self.arguments], self.arguments, strict=False)
        return tuple(word for before, word in words if before not in varying)

    @property
    def finished(self) -> bool:
        return (self.folder / "results.json").is_file()


@dataclass
class Dataset:
    """A dataset that a user named: one of configs/datasets/, a folder of pictures, or a list of them."""

    name: str
    settings: tuple[str, ...] = ()

    @property
    def config(self) -> str:
        return "folder" if self.settings else self.name


def dataset_named(word: str) -> Dataset:
    """Raises ValueError, with the nearest name, for what is neither a dataset nor a folder."""
    if os.sep not in word and (ROOT / "configs" / "datasets" / f"{word}.yaml").is_file() and word != "folder":
        _note_folder(word)
        return Dataset(word)
    path = Path(word).expanduser()
    if path.is_dir():
        path = path.resolve()
        return Dataset(_own_name(path.name), ("DATASET.FOLDER", str(path)))
    if is_manifest(path) and path.is_file():
        path = path.resolve()
        return Dataset(_own_name(path.stem), ("DATASET.FOLDER", str(path.parent), "DATASET.SPLIT_FILE", str(path)))
    known = [name for name in registry_names().values() if name != "folder"]
    hint = did_you_mean(word, [*known, *GROUPS]) or f"; known: {', '.join([*known, *GROUPS])}"
    raise ValueError(f'"{word}" is no dataset of configs/datasets and no folder or list of pictures{hint}')


@functools.cache  # said once
def _note_folder(word: str) -> None:
    """Says which is meant where a benchmark is called as a folder here."""
    if Path(word).is_dir():
        print(f'Note: "{word}" is the benchmark of that name; the folder here is ./{word}')


def dataset_of(word: str, data: str | None) -> Any:
    """The dataset itself, as Dassl builds it, of a word as in `dataset_named`. data: their folder; None: data/."""
    from dassl.data.datasets import build_dataset

    import datasets

    datasets.register_all()
    named = dataset_named(word)
    settings: list[Any] = [
        *in_pairs(list(named.settings)),
        ("DATASET.ROOT", str(from_project(data, "data"))),
        ("SEED", 1),
    ]
    cfg = configure([str(ROOT / "configs" / "datasets" / f"{named.config}.yaml")], settings)
    with contextlib.redirect_stdout(io.StringIO()):
        return build_dataset(cfg)


def _own_name(word: str) -> str:
    """What people's own pictures are called in folders and tables, after a folder or file of theirs."""
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in word)
    name = name.lstrip(".") or "pictures"  # hidden ones are no runs for the reader of results
    taken = name in registry_names().values() or name in ("train", "test", "tensorboard", "prompt_learner")
    return f"{name}_folder" if taken else name


@dataclass
class Request:
    """What the user asked for."""

    method: str
    protocol: str
    words: list[str]
    data: Path = Path("data")
    output: Path = Path("output")
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    shots: list[int] = field(default_factory=lambda: [16])
    config: str = ""
    tag: str = ""
    settings: list[str] = field(default_factory=list)
    joint: bool = False  # base-to-new: evaluate with all classes as candidates, too
    folds: int = 0  # of a cross-validation: the run of seed k tests on fold k

    def __post_init__(self) -> None:
        self.record: Method = method_named(self.method)
        if self.protocol not in PROTOCOLS:
            hint = did_you_mean(self.protocol, PROTOCOLS) or ";"
            raise ValueError(f'protocol "{self.protocol}" is unknown{hint} known: {", ".join(PROTOCOLS)}')
        if self.joint and self.protocol != "base2new":
            raise ValueError(f"--joint is for base2new, not for {self.protocol}")
        if self.folds and self.protocol in ("xd", "dg"):
            raise ValueError(f"--folds is for one dataset, not for {self.protocol}")
        if self.folds == 1 or (self.folds and not {*self.seeds} <= {*range(1, self.folds + 1)}):
            raise ValueError(
                f"--folds is {self.folds}: use 2 or more, and seeds from 1 to that number, one for each fold"
            )
        for key in self.settings[::2]:
            if key in SAID_OTHERWISE:
                raise ValueError(f"{key} is not set here, but by {SAID_OTHERWISE[key]}")
        self._understand_words()
        if self.config and not re.fullmatch(r"[\w.-]+", self.config):
            raise ValueError(
                f'the config is "{self.config}": use the name of a file in configs/trainers/{self.record.recipes_of}'
            )

    # --- words ---------------------------------------------------------------------------------------------------------

    def _understand_words(self) -> None:
        """Dataset, shots, seed or config among the words become fields; raises ValueError for what does not fit."""
        words = list(self.words)
        if self.protocol in ("main", "ablation"):
            if not words and self.protocol == "main":
                raise ValueError("which dataset? For example: main.sh imagenet 16")
            self._refuse_coops_order(words)
            self.dataset = words.pop(0) if words else "demo"
            if words:
                self.shots = shots_in(words.pop(0), "the number of shots")
            if words and self.protocol == "main":
                self.config = words.pop(0)
        elif self.protocol == "base2new":
            self.dataset = words.pop(0) if words else "all"
            if words:
                self.seeds = [_number(words.pop(0), "the seed", 0)]
        else:
            self.dataset = words.pop(0) if words else "imagenet"
            self.dataset = "drawn" if self.dataset == "small" else self.dataset
            self.targets, words = words, []
            double = next((name for name in self.targets if self.targets.count(name) > 1), None)
            if double:
                raise ValueError(f'the target "{double}" is named twice: name each once')
            names = [dataset_named(target).name for target in self.targets if self.dataset != "demo"]
            double = next((name for name in names if names.count(name) > 1), None)
            if double:
                raise ValueError(f'two targets are called "{double}", and would share a folder: rename one')
        if words:
            usage = {"main": "dataset, shots, config", "ablation": "dataset, shots", "base2new": "dataset, seed"}
            raise ValueError(f'"{words[0]}" is one word too many: {self.protocol} takes {usage[self.protocol]}')

    def _refuse_coops_order(self, words: list[str]) -> None:
        """Raises ValueError for the words of CoOp's own main.sh, and says what to type here."""
        if len(words) == 6 and words[2] in ("end", "middle", "front"):
            dataset, config, position, n_ctx, shots, csc = words
            key = self.record.options.KEY
            own = {"CLASS_TOKEN_POSITION": position, "N_CTX": n_ctx, "CSC": csc}
            has = {name.rsplit(".", 1)[-1] for name in self.record.options.settings()}
            settings = "".join(f" TRAINER.{key}.{name} {value}" for name, value in own.items() if name in has)
            raise ValueError(
                f"these are the words of CoOp's own script; here: main.sh {dataset} {shots} {config}{settings}"
            )

    def datasets(self) -> list[Dataset]:
        """Those that the first word names: one, several with commas between, all of a group, or a folder."""
        several = self.protocol in ("main", "base2new", "ablation") and not Path(self.dataset).expanduser().exists()
        words = self.dataset.split(",") if several else [self.dataset]
        names = [name for word in words for name in (group(GROUPS[word]) if word in GROUPS else [word])]
        double = next((name for name in names if names.count(name) > 1), None)
        if double:
            raise ValueError(f'the dataset "{double}" is named twice in "{self.dataset}": name each once')
        found = [dataset_named(name) for name in names]
        called = [dataset.name for dataset in found]
        double = next((name for name in called if called.count(name) > 1), None)
        if double:
            raise ValueError(f'two of "{self.dataset}" are called "{double}", and so would their runs be: rename one')
        return found

    # --- runs ----------------------------------------------------------------------------------------------------------

    def runs(self) -> list[Job]:
        """The runs, each after the runs that it needs. Raises ValueError for a protocol that a method does not
        support."""
        own = self.record
        if not own.knows_new_classes and self.protocol in ("base2new", "xd", "dg"):
            raise ValueError(
                f"{own.title} knows only the classes it was fitted on: python scripts/run.py {own.name} main demo 16"
            )
        if self.protocol == "ablation" and not own.ablations:
            with_some = [method.name for method in methods().values() if method.ablations]
            raise ValueError(f"{own.title} has no parts to change: bash scripts/{with_some[0]}/ablation.sh demo 16")
        listed: list[Job] = []
        for shots in self.shots if own.draws else [0]:
            for dataset in self.datasets():
                for seed in self.seeds if own.draws or self.folds else [0]:
                    listed += getattr(self, f"_{self.protocol}")(dataset, shots, seed)
        return listed

    def _main(self, dataset: Dataset, shots: int, seed: int) -> list[Job]:
        twins = (f"xd/from_{dataset.name}/train", f"dg/from_{dataset.name}/train")
        return [self._run("fewshot", "fewshot", dataset, shots, seed, same=twins)]

    def _base2new(self, dataset: Dataset, shots: int, seed: int) -> list[Job]:
        base = self._run("base2new/train_base", "base2new", dataset, shots, seed, "DATASET.SUBSAMPLE_CLASSES", "base",
                         part="base")  # fmt: skip
        tested = [
            self._run(f"base2new/test_{part}", "base2new", dataset, shots, seed, "DATASET.SUBSAMPLE_CLASSES", part,
                      part=part, needs=base)
            for part in ("new", *(["joint"] if self.joint else []))
        ]  # fmt: skip
        return [base, *tested]

    def _transfer(self, source: Dataset, shots: int, seed: int) -> list[Job]:
        """Train on `source`; test on each target. For the demo's domains, train and test on different styles."""
        where = self.protocol
        on_styles = where == "dg" and source.name == "demo"
        place, config = f"{where}/from_{source.name}", self._config(source, shots)
        seen = ("--source-domains", *STYLES_SEEN, "--target-domains", *STYLES_SEEN) if on_styles else ()
        twins = () if on_styles else ("fewshot", f"{'dg' if where == 'xd' else 'xd'}/from_{source.name}/train")
        trained = self._run(f"{place}/train", where, source, shots, seed, part=source.name, source=source.name,
                            config=config, domains=seen, same=twins)  # fmt: skip
        listed = [trained]
        for target in self.targets or self._usual_targets(source.name):
            unseen = ("--source-domains", *STYLES_SEEN, "--target-domains", target) if on_styles else ()
            if on_styles and target not in STYLES_SEEN + STYLES_UNSEEN:
                raise ValueError(f'style "{target}" is unknown; known: {", ".join(STYLES_SEEN + STYLES_UNSEEN)}')
            dataset = source if on_styles else dataset_named(target)
            below = f"{place}/test_{target}" if on_styles else f"{place}/test"
            listed.append(self._run(below, where, dataset, shots, seed, part=target, source=source.name, config=config,
                                    domains=unseen, needs=trained))  # fmt: skip
        return listed

    _xd = _dg = _transfer

    def _usual_targets(self, source: str) -> list[str]:
        if self.protocol == "dg" and source == "demo":
            return STYLES_UNSEEN
        kind, variants = ("small", "small_variants") if source in group("small") else ("benchmarks", "variants")
        return [d for d in group(kind) if d != source] if self.protocol == "xd" else group(variants)

    def _ablation(self, dataset: Dataset, shots: int, seed: int) -> list[Job]:
        return [
            self._run(f"ablation/{name}", "ablation", dataset, shots, seed, *changes, part=name,
                      same=() if changes else ("fewshot",))
            for name, changes in self.record.ablations.items()
        ]  # fmt: skip

    def _config(self, dataset: Dataset, shots: int) -> str:
        return self.config or config_for(self.record, dataset.name, self.protocol, shots)

    def _run(
        self,
        where: str,
        protocol: str,
        dataset: Dataset,
        shots: int,
        seed: int,
        *settings: str,
        part: str = "",
        source: str = "",
        config: str = "",
        needs: Job | None = None,
        domains: tuple[str, ...] = (),
        same: tuple[str, ...] = (),
    ) -> Job:
        """A run below output/`where`; with `needs`, an evaluation of that run's model.

        same: folders where other protocols store this run; train.py copies it from there if it is the same.
        """
        r, shown_seed = self.record, seed if self.record.draws or self.folds else None
        tag = "-".join(filter(None, (self.tag, f"folds{self.folds}" if self.folds else "")))
        config = config or self._config(dataset, shots)
        drawn = (f"shots_{in_words(shots)}", r.trainer) if r.draws else (r.trainer,)
        below = Path(dataset.name, *drawn, config, *([f"tag_{tag}"] if tag else []),
                     *([] if shown_seed is None else [f"seed{seed}"]))  # fmt: skip
        folder = self.output / where / below
        about = {
            "protocol": protocol, "part": part, "source": source, "dataset": dataset.name, "trainer": r.trainer,
            "config": config, "tag": tag, "shots": shots if r.draws else None, "seed": shown_seed,
            "command": self.command(shown_seed, shots if r.draws else None),
        }  # fmt: skip
        # train.py takes every word after --target-domains for a domain until the next option
        arguments = [*domains, "--root", str(self.data), "--seed", str(seed), "--trainer", r.trainer,
                     "--dataset-config-file", existing(f"configs/datasets/{dataset.config}.yaml"),
                     "--config-file", existing(f"configs/trainers/{r.recipes_of}/{config}.yaml"),
                     "--output-dir", str(folder), "--about", json.dumps(about)]  # fmt: skip
        needs = needs if r.keeps_a_model else None
        if needs is not None:
            arguments += ["--model-dir", str(needs.folder), "--eval-only"]
        for twin in same if r.takes_steps else ():
            arguments += ["--same-as", str(self.output / twin / below)]
        shots_setting = ["DATASET.NUM_SHOTS", str(shots)] if r.draws else []
        folds = ["DATASET.FOLDS", str(self.folds)] if self.folds else []
        # what a part of the protocol is about counts last
        arguments += [*dataset.settings, *self.settings, *settings, *shots_setting, *folds]
        return Job(folder, arguments, needs, dataset.name, shots)

    def command(self, seed: int | None = None, shots: int | None = None) -> str:
        """The command line for this request, or for one seed and number of shots of it."""
        script = f"scripts/{self.method}/{self.protocol}.sh"
        call = f"bash {script}" if (ROOT / script).is_file() else f"python scripts/run.py {self.method} {self.protocol}"
        named = len(self.words) if self.protocol == "xd" else 1  # the words that name datasets
        words = [*map(_from_anywhere, self.words[:named]), *self.words[named:]]
        known = {"DATA": str(self.data), "OUTPUT": str(self.output), "CFG": self.config, "TAG": self.tag}
        usual = {
            "DATA": ("data", str(ROOT / "data")),
            "OUTPUT": ("output", str(ROOT / "output")),
            "CFG": ("",),
            "TAG": ("",),
        }
        assigned = [f"{k}={shlex.quote(v)}" for k, v in known.items() if v not in usual[k]]
        if seed is not None:
            words = words[:1] if self.protocol == "base2new" else words  # its second word is a seed
            assigned.insert(0, f"SEEDS={seed}")
        if self.protocol in ("main", "ablation"):
            dataset = _from_anywhere(self.dataset)
            words = [dataset, in_words(shots), *words[2:]] if shots else [dataset]
        elif shots not in (None, 16):
            assigned.append(f"SHOTS={in_words(shots)}")
        more = [*(["--joint"] if self.joint else []), *(["--folds", str(self.folds)] if self.folds else [])]
        return " ".join([*assigned, call, *map(shlex.quote, [*words, *more, *self.settings])])


def _from_anywhere(word: str) -> str:
    """A folder or list of pictures as it can be named in the project's folder, where commands are repeated."""
    path = Path(word).expanduser()
    if "," in word and not path.exists():
        return ",".join(map(_from_anywhere, word.split(",")))
    known = {*GROUPS, *registry_names().values()} - {"folder"}
    is_own = word not in known and (path.is_dir() or (is_manifest(path) and path.is_file()))
    return str(path.resolve()) if is_own and Path.cwd() != ROOT else word


def to_do(runs: list[Job]) -> list[Job]:
    """Those that are not finished, and those that need one of them: what they have may be of another model."""
    anew = {run.folder for run in runs if not run.finished}
    return [run for run in runs if run.folder in anew or (run.needs is not None and run.needs.folder in anew)]


def _number(word: str, what: str, least: int = 1) -> int:
    try:
        number = int(word)
    except ValueError:
        number = least - 1
    if number < least:
        raise ValueError(f'{what} is "{word}": use a whole number from {least} on')
    return number


def numbers(text: str, what: str, least: int) -> list[int]:
    """ "1 2 3" or "1,2,3" as numbers. Raises ValueError for what is no number, and for an empty list."""
    found = [_number(word, what, least) for word in text.replace(",", " ").split()]
    if not found:
        raise ValueError(f'{what} is "{text}": use one or more whole numbers')
    return list(dict.fromkeys(found))


def shots_in(text: str, what: str) -> list[int]:
    """ "1 2 4", "16" or "all" as numbers of pictures per class, ALL for all. Raises ValueError as `numbers`."""
    words = text.replace(",", " ").split()
    if any((word != "all" and not word.isdecimal()) or word == "0" for word in words):
        raise ValueError(f'{what} is "{text}": use whole numbers from 1 on, or all')
    return numbers(" ".join(words).replace("all", str(ALL)), what, ALL)


def in_words(shots: int | None) -> str:
    """As `shots_in` reads it; None where nothing is drawn."""
    return "all" if shots == ALL else str(shots)
