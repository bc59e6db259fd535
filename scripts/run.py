"""Runs a whole protocol for one method or several: checks, skips finished runs, resumes the others, ends with the table.

    python scripts/run.py mocoop main imagenet 16          few-shot on one dataset (name or folder, shots, optional config)
    python scripts/run.py mocoop base2new [dataset [seed]] train on base classes, test on base and new
    python scripts/run.py mocoop xd [source [targets ...]] train on the source, test on other datasets
    python scripts/run.py mocoop dg [source [targets ...]] train on the source, test on its variants
    python scripts/run.py mocoop ablation demo 16          few-shot, each part of the method changed in turn
    python scripts/run.py coop,lasp,mocoop base2new        one protocol for several methods, one table

Environment (each also an option): DATA (data), OUTPUT (output), SEEDS ("1 2 3"), SHOTS ("16"), CFG (the recipe's),
TAG (a name of your own for these settings, part of the runs' path), JOBS (runs at a time, 1), GPUS ("0,1": one process per
device). Further settings go to every run, as in OPTIM.MAX_EPOCH 10; paths among them are relative to the project.
"""

import argparse
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from queue import Queue
from typing import Any

from tqdm import tqdm

from scripts.checks import FoundFault, check_folders, check_inputs, check_settings
from scripts.progress import Progress
from scripts.protocols import PROTOCOLS, Job, Request, numbers
from scripts.workers import Cold, Started, Warm, starter
from trainers.core.settings import ROOT, SHARED
from trainers.core.stopping import RESUME_ME


def from_project(given: str | None, default: str) -> Path:
    """A folder as train.py, which starts in the project, has to be told it: `given` is relative to where the user is."""
    if given is None:
        return Path(default) if Path.cwd() == ROOT else ROOT / default
    return Path(given) if Path.cwd() == ROOT else Path(given).absolute()


class Runner:
    """Does the runs, several at a time, and shows where they stand."""

    def __init__(self, runs: list[Job], starter: Cold | Warm, jobs: int, gpus: list[str]) -> None:
        self.runs, self.starter = runs, starter
        self.devices: Queue[str] = Queue()
        for i in range(jobs):
            self.devices.put(gpus[i % len(gpus)] if gpus else "")
        self.jobs = jobs
        self.processes: set[Started] = set()
        self.stopping = False

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
        environment = {"MOCOOP_BARS": "1"} if sys.stderr.isatty() and self.jobs == 1 else {}
        self.progress = Progress({str(run.folder): run.kind for run in todo}, self.jobs)
        with tqdm(total=len(todo), desc="Runs", unit="run", disable=None) as self.bar:
            waiting = {run.folder for run in todo}
            begun = [run for run in todo if run.needs is None or run.needs.folder not in waiting]
            later = [run for run in todo if run not in begun]
            if self.jobs > 1:  # the longest first, so that none is left alone at the end
                begun.sort(key=lambda run: -run.shots)
            with ThreadPoolExecutor(self.jobs) as pool:
                doing = {pool.submit(self._do, run, environment): run for run in begun}
                while doing:
                    for done in wait(doing, return_when=FIRST_COMPLETED).done:
                        ended = doing.pop(done)
                        done.result()
                        self.bar.update()
                        if self.progress.done and self.progress.kinds:
                            tqdm.write(f"{time.strftime('%H:%M:%S')} {self.progress.line()}")
                        next_ones = [run for run in later if run.needs is not None and run.needs.folder == ended.folder]
                        doing |= {pool.submit(self._do, run, environment): run for run in next_ones}

    def _stop(self, number: int, frame: Any) -> None:
        self.stopping = True
        for process in list(self.processes):
            process.terminate()

    def _do(self, run: Job, environment: dict[str, str]) -> None:
        if self.stopping:
            run.status = "not started"
            return
        if run.needs is not None and not run.needs.finished:
            run.status = f"waits for {run.needs.folder}"
            return
        device = self.devices.get()
        try:
            env = environment | ({"CUDA_VISIBLE_DEVICES": device} if device else {})
            self._call(run, env)
        finally:
            self.devices.put(device)

    def _call(self, run: Job, env: dict[str, str]) -> None:
        quiet = self.jobs > 1
        tqdm.write(f"{time.strftime('%H:%M:%S')} {run.folder}")
        begin = told = time.monotonic()
        self.progress.begin(str(run.folder))
        process = self.starter.start(run.arguments, env, quiet)
        self.processes.add(process)
        if self.stopping:  # asked while it was started
            process.terminate()
        said: list[str] = []
        last: deque[str] = deque(maxlen=30)
        for line in _lines(process.stream):
            last.append(line)
            if line.startswith("error: "):
                said.append(line.strip())
            if not quiet:
                sys.stderr.write(line)
                sys.stderr.flush()
            elif line.startswith("epoch ["):
                where = f"{run.dataset} {run.folder.name}: {line.split(' batch')[0]}"
                self.bar.set_postfix_str(where)
                if self.bar.disable and time.monotonic() - told > 30:  # no terminal, no bar: a line now and then
                    told = time.monotonic()
                    tqdm.write(f"{time.strftime('%H:%M:%S')} {where}")
        status = process.wait()
        self.processes.discard(process)
        self.progress.end(str(run.folder), counts=status == 0)
        if status == 0:
            run.status = "finished"
            if quiet:
                tqdm.write(f"{time.strftime('%H:%M:%S')} {run.folder}: finished in {time.monotonic() - begin:.0f} s")
            return
        run.status = "stopped; the same command continues it"
        if status != RESUME_ME:
            run.status = said[-1] if said else f"failed with status {status}"
            if quiet and not said:
                tqdm.write("".join(last))
        tqdm.write(f"{run.folder}: {run.status}")


def _starter(runs: list[Job], configurations: dict[Path, Any], jobs: int) -> Cold | Warm:
    """What starts the runs that are left, with the backbones and seeds that they need."""
    left = [configurations[run.folder] for run in runs if not run.finished]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // jobs))
    # large tensors are page-fault bound with the allocator's usual thresholds
    environment = {"OMP_NUM_THREADS": threads, "MALLOC_MMAP_THRESHOLD_": "1073741824",
                   "MALLOC_TRIM_THRESHOLD_": "8589934592"}  # fmt: skip
    if not left:
        return Cold(environment)
    backbones = dict.fromkeys(cfg.MODEL.BACKBONE.NAME for cfg in left)
    return starter(environment, backbones, dict.fromkeys(cfg.SEED for cfg in left))


def _lines(stream: Any) -> Iterator[str]:
    """Lines of a stream, with progress bars (which end in a carriage return) passed on piece by piece."""
    text = ""
    while chunk := os.read(stream.fileno(), 4096).decode(errors="replace"):
        text += chunk
        *whole, text = re.split(r"(?<=[\r\n])", text)
        yield from whole
    if text:
        yield text


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Options may stand before, between and after the words and settings, which are told apart in `split`."""
    env = os.environ
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "method", help="mocoop, coop, cocoop, lasp, zsclip, zsclip2, linear_probe, or several: coop,lasp"
    )
    parser.add_argument("protocol", help=", ".join(PROTOCOLS))
    parser.add_argument("words", nargs="*", help="see above, and settings")
    parser.add_argument("--data", default=env.get("DATA"), help="folder of the datasets (DATA; the project's data/)")
    parser.add_argument(
        "--output", default=env.get("OUTPUT"), help="folder of the runs (OUTPUT; the project's output/)"
    )
    parser.add_argument("--seeds", default=env.get("SEEDS", "1 2 3"), help='"1 2 3" (SEEDS)')
    parser.add_argument(
        "--shots", default=env.get("SHOTS", "16"), help='pictures per class, as in "1 2 4 8 16" (SHOTS)'
    )
    parser.add_argument("--cfg", default=env.get("CFG", ""), help="config below configs/trainers/<method> (CFG)")
    parser.add_argument("--tag", default=env.get("TAG", ""), help="a name for these settings, part of the path (TAG)")
    parser.add_argument("--jobs", default=env.get("JOBS", ""), help="runs at a time (JOBS)")
    parser.add_argument("--gpus", default=env.get("GPUS", ""), help='"0,1,2" (GPUS)')
    parser.add_argument("--no-table", action="store_true", help="do not print the table at the end")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, do nothing")
    return parser.parse_intermixed_args(given)


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """The words of the protocol, and KEY value KEY value ... Raises ValueError for a key without a value."""
    plain, settings, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if not (re.fullmatch(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+", word) or word in SHARED):
            plain.append(word)
            continue
        if not rest:
            raise ValueError(f'settings come in pairs of key and value, but "{word}" stands alone')
        settings += [word, rest.pop(0)]
    return plain, settings


def requested(args: argparse.Namespace) -> tuple[list[Request], int, list[str]]:
    """What is asked of each method, how many runs at a time, on which devices. Raises ValueError, in one line."""
    words, settings = split(args.words)
    gpus = [word for word in args.gpus.replace(" ", ",").split(",") if word]
    jobs = numbers(args.jobs, "JOBS", 1)[0] if args.jobs else len(gpus) or 1
    if args.tag and not re.fullmatch(r"[\w.+-]{1,60}", args.tag):
        raise ValueError(f'TAG is "{args.tag}": use up to 60 letters, digits, ".", "-", "+" or "_"')
    requests = [
        Request(
            method, args.protocol, list(words), from_project(args.data, "data"), from_project(args.output, "output"),
            numbers(args.seeds, "SEEDS", 0), numbers(args.shots, "SHOTS", 1), args.cfg, args.tag, settings,
        )
        for method in dict.fromkeys(args.method.split(","))
    ]  # fmt: skip
    return requests, jobs, gpus


def main() -> int:
    args = parse_arguments()
    try:
        requests, jobs, gpus = requested(args)
        runs = [run for request in requests for run in request.runs()]
        os.chdir(ROOT)  # where train.py runs, and what relative paths in configs mean
        configurations = check_settings(runs)
        check_folders(runs, configurations)
        if args.dry_run:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
            for run in runs:
                print("finished  " if run.finished else "to do     ", run.folder)
            return 0
        started = _starter(runs, configurations, jobs)  # loads while the inputs are checked
        check_inputs(runs, configurations)
    except (ValueError, FoundFault, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "status", 2)
    except KeyboardInterrupt:  # nothing has been started
        return 130
    runner = Runner(runs, started, jobs, gpus)
    runner.go()
    unfinished = [run for run in runs if not run.finished]
    for run in unfinished:
        print(f"not finished: {run.folder} ({run.status})", file=sys.stderr)
    if not args.no_table and any(run.finished for run in runs):
        from scripts.report.collect import collect_runs
        from scripts.report.tables import render, tables

        found = collect_runs([run.folder for run in runs], requests[0].output)
        print("\n\n\n".join(render(table, "simple") for table in tables(found.runs, "accuracy")))
        for path, reason in found.unreadable.items():
            print(f"left out: {path} ({reason})", file=sys.stderr)
    if runner.stopping:
        return RESUME_ME
    return 1 if unfinished else 0


if __name__ == "__main__":
    sys.exit(main())
