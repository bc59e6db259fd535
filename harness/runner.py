"""Executes the runs of a protocol, several at a time, and shows progress."""

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

from harness.launcher import Cold, Started, Warm, starter
from harness.plan import Job, to_do
from harness.progress import Progress
from trainers.core.ranks.processes import SHARING, cores
from trainers.core.settings.errors import one_line
from trainers.core.settings.screen import RELAYED
from trainers.core.training.stopping import RESUME_ME, on_stop_signals

TELL = 300  # seconds after which a run that shows nothing says where it is


class Runner:
    """Does the runs, several at a time, and shows where they stand."""

    def __init__(
        self, runs: list[Job], starter: Cold | Warm, jobs: int, gpus: list[str], ranks: int = 1, verbose: bool = False
    ) -> None:
        """jobs: runs at a time. gpus: devices, of which each run has `ranks`, a process on each. verbose: show what runs
        print; a single run's is always shown, that of several at a time never."""
        self.runs, self.starter = runs, starter
        self.devices: Queue[str] = Queue()
        sets = [",".join(gpus[i : i + ranks]) for i in range(0, len(gpus), ranks)]
        for i in range(jobs):
            self.devices.put(sets[i % len(sets)] if sets else "")
        self.jobs, self.ranks, self.verbose = jobs, ranks, verbose
        self.sharing = -(-min(jobs, max(1, len(runs))) // max(1, len(sets)))  # runs on a device
        self.processes: set[Started] = set()
        self.stopping = False
        self.asked_by = signal.SIGTERM.value
        self.noted: set[str] = set()

    def go(self) -> None:
        """Executes all unfinished runs. A stop signal is passed on to the runs, which save a checkpoint and end."""
        on_stop_signals(self._stop)
        todo = to_do(self.runs)
        left = {run.folder for run in todo}
        for run in self.runs:
            if run.folder not in left:
                run.status = "finished before"
                print(f"{run.folder} is finished: skipped")
        self.quiet = self.jobs > 1 or (len(todo) > 1 and not self.verbose)
        environment = {RELAYED: "1"} if self.quiet else {"MOCOOP_BARS": "1"} if sys.stderr.isatty() else {}
        self.progress = Progress({str(run.folder): run.kind for run in todo}, self.jobs)
        with tqdm(total=len(todo), desc="Runs", unit="run", disable=None) as self.bar:
            waiting = {run.folder for run in todo}
            begun = [run for run in todo if run.needs is None or run.needs.folder not in waiting]
            later = [run for run in todo if run not in begun]
            if self.jobs > 1:  # the longest first, so that none is left alone at the end
                begun.sort(key=lambda run: (run.shots > 0, -run.shots))
            with ThreadPoolExecutor(self.jobs) as pool:
                doing = {pool.submit(self._do, run, environment): run for run in begun}
                while doing:
                    for done in wait(doing, return_when=FIRST_COMPLETED).done:
                        ended = doing.pop(done)
                        done.result()
                        self.bar.update()
                        next_ones = [run for run in later if run.needs is not None and run.needs.folder == ended.folder]
                        doing |= {pool.submit(self._do, run, environment): run for run in next_ones}

    def _stop(self, number: int, frame: Any) -> None:
        self.stopping = True
        self.asked_by = number
        for process in list(self.processes):
            process.send(number)

    def _do(self, run: Job, environment: dict[str, str]) -> None:
        if self.stopping:
            run.status = "not started"
            return
        if run.needs is not None and not run.needs.finished:
            run.status = f"waits for {run.needs.folder}"
            return
        device = self.devices.get()
        try:
            shared = {SHARING: str(self.sharing)}
            chosen = {"CUDA_VISIBLE_DEVICES": device} if device else {}
            if device and not {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"} & os.environ.keys():
                chosen["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the numbers are nvidia-smi's
            env = environment | shared | chosen
            self._call(run, env)
        finally:
            self.devices.put(device)

    def _call(self, run: Job, env: dict[str, str]) -> None:
        quiet = self.quiet
        if not quiet:
            tqdm.write(f"{time.strftime('%H:%M:%S')} {run.folder}")
        begin = told = time.monotonic()
        self.progress.begin(str(run.folder))
        try:
            process = self.starter.start(run.arguments, env, quiet, self.ranks)
        except OSError as error:
            self.progress.end(str(run.folder), counts=False)
            run.status = f"could not be started: {one_line(error)}"
            tqdm.write(f"{run.folder}: {run.status}")
            return
        self.processes.add(process)
        if self.stopping:  # asked while it was started
            process.send(self.asked_by)
        said: list[str] = []
        last: deque[str] = deque(maxlen=100)
        for line in _lines(process.stream):
            last.append(line)
            if line.startswith("error: "):
                said.append(line.strip())
            if quiet and line.startswith("Note: ") and line not in self.noted:  # of several runs, each once
                self.noted.add(line)
                tqdm.write(line.rstrip())
            if not quiet:
                sys.stderr.write(line)
                sys.stderr.flush()
            elif line.startswith("epoch ["):
                where = f"{run.dataset} {run.folder.name}: {line.split(' batch')[0]}"
                self.bar.set_postfix_str(where)
                if self.bar.disable and time.monotonic() - told > TELL:  # no terminal, no bar: a line now and then
                    told = time.monotonic()
                    tqdm.write(f"{time.strftime('%H:%M:%S')} {where}")
        run.exit_status = status = process.wait()
        self.processes.discard(process)
        self.progress.end(str(run.folder), counts=status == 0)
        if status == 0:
            run.status = "finished"
            took = f"{run.folder}: finished in {time.monotonic() - begin:.0f} s"
            left = f"; {self.progress.line()}" if self.progress.kinds else ""
            tqdm.write(f"{time.strftime('%H:%M:%S')} {took}{left}")
            return
        run.status = "stopped; the same command continues it"
        if status != RESUME_ME and not self.stopping:  # when asked to stop, some have not begun what they could save
            run.status = said[-1] if said else f"failed with status {status}"
            trace = next((i for i, line in enumerate(last) if line.startswith("Traceback")), None)
            if quiet and (trace is not None or not said):  # what only torch can explain has both
                tqdm.write("".join(list(last)[-30 if trace is None else trace :]))
        tqdm.write(f"{run.folder}: {run.status}")


def starter_for(runs: list[Job], configurations: dict[Path, Any], processes: int) -> Cold | Warm:
    """What starts the runs that are left, with the backbones and seeds that they need; `processes` compute at a time."""
    left = [configurations[run.folder] for run in runs if not run.finished]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // processes))
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
