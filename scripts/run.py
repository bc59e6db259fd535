"""Runs a whole protocol for one method: lists the runs, skips finished ones, resumes the others, ends with the table.

    python scripts/run.py mocoop main imagenet 16          few-shot on one dataset (name, shots, optional config)
    python scripts/run.py mocoop base2new [dataset [seed]] train on base classes, test on base and new
    python scripts/run.py mocoop xd [source [targets ...]] train on the source, test on other datasets
    python scripts/run.py mocoop dg [source [targets ...]] train on the source, test on its variants
    python scripts/run.py mocoop ablation demo 16          few-shot, each part of the method changed in turn

Environment (each also an option): DATA (data), OUTPUT (output), SEEDS ("1 2 3"), SHOTS (16), CFG (the recipe's),
JOBS (runs at a time, 1), GPUS ("0,1": one process per device). Further settings go to every run, as in
OPTIM.MAX_EPOCH 10; paths among them are relative to the project.
"""

import argparse
import difflib
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any

import yaml
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
RESUME_ME = 75
BENCHMARKS = ["imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft",
              "sun397", "dtd", "eurosat", "ucf101"]  # fmt: skip
VARIANTS = ["imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"]
STYLES_SEEN = ["clean", "bright", "large", "small", "many"]
STYLES_UNSEEN = ["pixelated", "blurry", "dark", "cropped", "sketch"]

ABLATIONS = {
    "full": [],
    "uniform_router": ["TRAINER.MOCOOP.ROUTER", "uniform"],
    "no_gate_loss": ["TRAINER.MOCOOP.GATE_LOSS_WEIGHT", "0.0"],
    "no_text_loss": ["TRAINER.MOCOOP.TEXT_LOSS_WEIGHT", "0.0"],
    "no_visual_ln": ["TRAINER.MOCOOP.TRAIN_VISUAL_LN", "False"],
    "top_1": ["TRAINER.MOCOOP.TOP_K", "1"],
    "top_all": ["TRAINER.MOCOOP.TOP_K", "1000"],
    "class_mean_gate": ["TRAINER.MOCOOP.GATE_TARGET", "class_mean"],
}


@dataclass
class Run:
    """One call of train.py, and what has to be finished before it."""

    folder: Path
    arguments: list[str]
    needs: "Run | None" = None
    dataset: str = ""
    status: str = field(default="waiting", compare=False)

    @property
    def finished(self) -> bool:
        return (self.folder / "results.json").is_file()


@dataclass
class Plan:
    """What the user asked for."""

    method: str
    protocol: str
    data: Path
    output: Path
    seeds: list[int]
    shots: int
    config: str
    opts: list[str]

    def __post_init__(self) -> None:
        recipes = yaml.safe_load((ROOT / "configs" / "recipes.yaml").read_text())
        if self.method not in recipes:
            raise ValueError(f'method "{self.method}" is unknown; known: {", ".join(sorted(recipes))}')
        self.recipe = recipes[self.method]
        self.trainer = self.recipe["trainer"]

    def config_for(self, dataset: str, protocol: str, shots: int) -> str:
        """The config's name: asked for, or published for this dataset, protocol or number of shots."""
        if self.config:
            return self.config
        own: dict[str, Any] = self.recipe["configs"]
        choice: Any = own.get(f"{dataset}/{protocol}") or own.get(dataset) or own.get(protocol) or own["default"]
        return str(choice.get(shots, choice["default"]) if isinstance(choice, dict) else choice)

    def run(
        self,
        where: str,
        dataset: str,
        seed: int,
        shots: int,
        *settings: str,
        config: str = "",
        needs: Run | None = None,
        domains: tuple[str, ...] = (),
        same: tuple[str, ...] = (),
    ) -> Run:
        """A run below output/`where`; with `needs`, an evaluation of that run's model.

        same: where other protocols put this run; train.py takes it from there if the settings are equal.
        """
        config = config or self.config_for(dataset, self.protocol, shots)
        below = Path(dataset, f"shots_{shots}", self.trainer, config, f"seed{seed}")
        folder = self.output / where / below
        # train.py takes every word after --target-domains for a domain until the next option
        arguments = [*domains, "--root", str(self.data), "--seed", str(seed), "--trainer", self.trainer,
                     "--dataset-config-file", existing(f"configs/datasets/{dataset}.yaml"),
                     "--config-file", existing(f"configs/trainers/{self.recipe['folder']}/{config}.yaml"),
                     "--output-dir", str(folder)]  # fmt: skip
        if needs is not None:
            arguments += ["--model-dir", str(needs.folder), "--eval-only"]
        for twin in same if self.recipe["trains"] else ():
            arguments += ["--same-as", str(self.output / twin / below)]
        return Run(folder, [*arguments, *settings, "DATASET.NUM_SHOTS", str(shots), *self.opts], needs, dataset)

    def few_shot(self, datasets: list[str]) -> list[Run]:
        return [
            self.run("fewshot", d, seed, self.shots, same=(f"xd/from_{d}/train", f"dg/from_{d}/train"))
            for d in datasets
            for seed in self.seeds
        ]

    def base_to_new(self, datasets: list[str]) -> list[Run]:
        runs = []
        for d in datasets:
            for seed in self.seeds:
                base = self.run("base2new/train_base", d, seed, self.shots, "DATASET.SUBSAMPLE_CLASSES", "base")
                runs.append(base)
                new = ["DATASET.SUBSAMPLE_CLASSES", "new"]
                needs = base if self.recipe["trains"] else None
                runs.append(self.run("base2new/test_new", d, seed, self.shots, *new, needs=needs))
        return runs

    def transfer(self, where: str, source: str, targets: list[str]) -> list[Run]:
        """Train on `source`; test on each target. For the demo's domains, train and test on different styles."""
        runs = []
        config = self.config_for(source, self.protocol, self.shots)
        on_styles = where == "dg" and source == "demo"
        for seed in self.seeds:
            seen = ("--source-domains", *STYLES_SEEN, "--target-domains", *STYLES_SEEN) if on_styles else ()
            twins = () if on_styles else ("fewshot", f"{'dg' if where == 'xd' else 'xd'}/from_{source}/train")
            place = f"{where}/from_{source}/train"
            trained = self.run(place, source, seed, self.shots, config=config, domains=seen, same=twins)
            runs.append(trained)
            needs = trained if self.recipe["trains"] else None
            for target in targets:
                unseen = ("--source-domains", *STYLES_SEEN, "--target-domains", target) if on_styles else ()
                name = source if on_styles else target
                place = f"{where}/from_{source}/test_{target}" if on_styles else f"{where}/from_{source}/test"
                runs.append(self.run(place, name, seed, self.shots, config=config, needs=needs, domains=unseen))
        return runs


def from_project(given: str | None, default: str) -> Path:
    """A folder as train.py, which starts in the project, has to be told it: `given` is relative to where the user is."""
    if given is None:
        return Path(default) if Path.cwd() == ROOT else ROOT / default
    return Path(given) if Path.cwd() == ROOT else Path(given).absolute()


def existing(path: str) -> str:
    """`path` below the project, if it is there. Raises ValueError with the nearest name."""
    file = ROOT / path
    if not file.is_file():
        known = sorted(p.stem for p in file.parent.glob("*.yaml"))
        near = difflib.get_close_matches(file.stem, known, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else f"; known: {', '.join(known)}"
        raise ValueError(f'there is no "{file.stem}" in {Path(path).parent}{hint}')
    return path


def plan_runs(plan: Plan, positional: list[str]) -> list[Run]:
    """The runs of a protocol, in an order in which each comes after what it needs."""
    if plan.protocol == "main":
        if not positional:
            raise ValueError("which dataset? For example: main.sh imagenet 16")
        plan.shots = int(positional[1]) if len(positional) > 1 else plan.shots
        plan.config = positional[2] if len(positional) > 2 else plan.config
        return plan.few_shot(BENCHMARKS if positional[0] == "all" else [positional[0]])
    if plan.protocol == "ablation":
        if plan.trainer != "MoCoOp":
            raise ValueError("the ablation takes MoCoOp apart: bash scripts/mocoop/ablation.sh demo 16")
        dataset = positional[0] if positional else "demo"
        plan.shots = int(positional[1]) if len(positional) > 1 else plan.shots
        return [
            plan.run(f"ablation/{name}", dataset, seed, plan.shots, *changes, same=() if changes else ("fewshot",))
            for name, changes in ABLATIONS.items()
            for seed in plan.seeds
        ]
    if plan.trainer == "LinearProbe" and plan.protocol in ("base2new", "xd", "dg"):
        raise ValueError(
            "a linear probe knows only the classes it was fitted on: bash scripts/linear_probe/main.sh demo 16"
        )
    if plan.protocol == "base2new":
        plan.seeds = [int(positional[1])] if len(positional) > 1 else plan.seeds
        return plan.base_to_new(BENCHMARKS if positional[:1] in ([], ["all"]) else [positional[0]])
    if plan.protocol in ("xd", "dg"):
        source = positional[0] if positional else "imagenet"
        others = {"xd": [b for b in BENCHMARKS if b != source], "dg": VARIANTS}[plan.protocol]
        if source in ("demo", "quickdraw", "cifar10"):
            small = [d for d in ("demo", "quickdraw", "cifar10") if d != source]
            others = STYLES_UNSEEN if plan.protocol == "dg" and source == "demo" else small
        return plan.transfer(plan.protocol, source, positional[1:] or others)
    raise ValueError(f'protocol "{plan.protocol}" is unknown; known: main, base2new, xd, dg, ablation')


class Runner:
    """Does the runs, several at a time, and shows where they stand."""

    def __init__(self, runs: list[Run], jobs: int, gpus: list[str]) -> None:
        self.runs = runs
        self.devices: Queue[str] = Queue()
        for i in range(jobs):
            self.devices.put(gpus[i % len(gpus)] if gpus else "")
        self.jobs = jobs
        self.processes: dict[int, subprocess.Popen] = {}
        self.stopping = False
        self.missing: dict[str, str] = {}

    def go(self) -> None:
        """Does what is not finished yet. SIGINT and SIGTERM are passed on; the runs save themselves and end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        todo = []
        for run in self.runs:
            if run.finished:
                run.status = "finished before"
                print(f"{run.folder} is finished: skipped")
            else:
                todo.append(run)
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // self.jobs))
        environment = os.environ | {"OMP_NUM_THREADS": threads, "MALLOC_MMAP_THRESHOLD_": "1073741824",
                                    "MALLOC_TRIM_THRESHOLD_": "8589934592"}  # fmt: skip
        with tqdm(total=len(todo), desc="Runs", unit="run", disable=None) as self.bar:
            for wave in _waves(todo):
                with ThreadPoolExecutor(self.jobs) as pool:
                    for done in as_completed([pool.submit(self._do, run, environment) for run in wave]):
                        done.result()
                        self.bar.update()

    def _stop(self, number: int, frame: Any) -> None:
        self.stopping = True
        for process in list(self.processes.values()):
            process.terminate()

    def _do(self, run: Run, environment: dict[str, str]) -> None:
        if self.stopping:
            run.status = "not started"
            return
        if run.needs is not None and not run.needs.finished:
            run.status = f"waits for {run.needs.folder}"
            return
        if run.dataset in self.missing:
            run.status = f"dataset missing: {self.missing[run.dataset]}"
            return
        device = self.devices.get()
        try:
            env = environment | ({"CUDA_VISIBLE_DEVICES": device} if device else {})
            self._call(run, env)
        finally:
            self.devices.put(device)

    def _call(self, run: Run, env: dict[str, str]) -> None:
        quiet = self.jobs > 1
        tqdm.write(f"{time.strftime('%H:%M:%S')} {run.folder}")
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *run.arguments],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.STDOUT if quiet else subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches this process only, which asks the runs to stop
        )
        self.processes[process.pid] = process
        said: list[str] = []
        last: deque[str] = deque(maxlen=30)
        for line in _lines(process.stdout if quiet else process.stderr):
            last.append(line)
            if line.startswith("error: "):
                said.append(line.strip())
            if not quiet:
                sys.stderr.write(line)
                sys.stderr.flush()
            elif line.startswith("epoch ["):
                self.bar.set_postfix_str(f"{run.dataset} seed {run.folder.name[4:]}: {line.split(' batch')[0]}")
        status = process.wait()
        del self.processes[process.pid]
        if status == 0:
            run.status = "finished"
        elif status == RESUME_ME:
            run.status = "stopped; the same command continues it"
        else:
            run.status = said[-1] if said else f"failed with status {status}"
            if quiet and not said:
                tqdm.write("".join(last))
            if " is missing: python scripts/prepare_data.py" in run.status:
                self.missing[run.dataset] = run.status.removeprefix("error: ")
            tqdm.write(f"{run.folder}: {run.status}")


def _lines(stream: Any) -> Iterator[str]:
    """Lines of a stream, with progress bars (which end in a carriage return) passed on piece by piece."""
    text = ""
    while chunk := os.read(stream.fileno(), 4096).decode(errors="replace"):
        text += chunk
        *whole, text = re.split(r"(?<=[\r\n])", text)
        yield from whole
    if text:
        yield text


def _waves(runs: list[Run]) -> Iterator[list[Run]]:
    """First what needs nothing that is still to be done, then the rest."""
    open_folders = {run.folder for run in runs}
    first = [run for run in runs if run.needs is None or run.needs.folder not in open_folders]
    rest = [run for run in runs if run not in first]
    yield first
    if rest:
        yield rest


def parse_arguments() -> tuple[argparse.Namespace, list[str], list[str]]:
    """The options, the positional words, and the settings for train.py (upper-case keys with a dot, and their values)."""
    env = os.environ
    parser = argparse.ArgumentParser(
        prog=env.get("MOCOOP_SCRIPT"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("method", help="mocoop, coop, cocoop, lasp, zsclip, zsclip2, linear_probe")
    parser.add_argument("protocol", help="main, base2new, xd, dg, ablation")
    parser.add_argument("words", nargs="*", help="see above, then settings")
    parser.add_argument("--data", default=env.get("DATA"), help="folder of the datasets (DATA; the project's data/)")
    parser.add_argument(
        "--output", default=env.get("OUTPUT"), help="folder of the runs (OUTPUT; the project's output/)"
    )
    parser.add_argument("--seeds", default=env.get("SEEDS", "1 2 3"), help='"1 2 3" (SEEDS)')
    parser.add_argument("--shots", type=int, default=int(env.get("SHOTS", "16")), help="pictures per class (SHOTS)")
    parser.add_argument("--cfg", default=env.get("CFG", ""), help="config below configs/trainers/<method> (CFG)")
    parser.add_argument("--jobs", type=int, default=int(env.get("JOBS", "0")), help="runs at a time (JOBS)")
    parser.add_argument("--gpus", default=env.get("GPUS", ""), help='"0,1,2" (GPUS)')
    parser.add_argument("--no-table", action="store_true", help="do not print the table at the end")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, do nothing")
    args = parser.parse_args()
    first = next((i for i, w in enumerate(args.words) if re.fullmatch(r"[A-Z0-9_]+(\.[A-Z0-9_]+)*", w)
                  and not w.isdigit()), len(args.words))  # fmt: skip
    return args, args.words[:first], args.words[first:]


def main() -> int:
    args, positional, opts = parse_arguments()
    try:
        plan = Plan(args.method, args.protocol, from_project(args.data, "data"), from_project(args.output, "output"),
                    [int(s) for s in args.seeds.replace(",", " ").split()], args.shots, args.cfg, opts)  # fmt: skip
        runs = plan_runs(plan, positional)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.dry_run:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
        for run in runs:
            print("finished  " if run.finished else "to do     ", run.folder)
        return 0
    gpus = [g for g in args.gpus.split(",") if g]
    runner = Runner(runs, args.jobs or len(gpus) or 1, gpus)
    runner.go()
    for name, fault in runner.missing.items():
        print(f"dataset {name} was left out: {fault}", file=sys.stderr)
    unfinished = [run for run in runs if not run.finished]
    for run in unfinished:
        print(f"not finished: {run.folder} ({run.status})", file=sys.stderr)
    if not args.no_table and any(run.finished for run in runs):
        subprocess.run([sys.executable, str(ROOT / "parse_results.py"), str(plan.output)], check=False)
    if runner.stopping:
        return RESUME_ME
    return 1 if unfinished else 0


if __name__ == "__main__":
    sys.exit(main())
