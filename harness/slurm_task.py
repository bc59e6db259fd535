"""One task of a job array on a cluster: executes its runs, several at a time, and records their outcome in their
folders.

The input on standard input is written by harness/slurm.py. Exit status: 0 all finished, 75 asked to stop and to be
queued again, 1 otherwise.
"""

import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.plan import Job
from harness.preflight import check_settings
from harness.runner import Runner, starter_for
from harness.slurm import note_of, write_note
from trainers.core.runs.files import CHECKPOINTS
from trainers.core.training.stopping import RESUME_ME

EARLY = 90  # seconds by which Slurm may warn too early: it looks once a minute


def main() -> int:
    asked, begin = json.load(sys.stdin), time.time()
    number = os.environ["SLURM_ARRAY_TASK_ID"]
    runs = [
        Job(Path(run["folder"]), run["arguments"], dataset=run["dataset"], shots=run["shots"])
        for run in asked["tasks"][number]
    ]
    print(f"job {os.environ['SLURM_ARRAY_JOB_ID']}_{number}: {len(runs)} runs", flush=True)
    at_once = min(asked["jobs"], len(runs))
    try:
        configurations = check_settings(runs, [])
        if asked.get("gpu") and any(cfg.USE_CUDA for cfg in configurations.values()):
            refuse_without_gpu()
        starter = starter_for(runs, configurations, at_once * asked["ranks"])
    except ValueError as error:
        return ended(runs, f"error: {error}")
    before = state_of(runs)
    runner = Runner(runs, starter, at_once, [], asked["ranks"])
    runner.go()
    left = [run for run in runs if not run.finished]
    if runner.stopping or any(run.exit_status == RESUME_ME for run in left):
        stood_still = had_its_time(begin, asked) and state_of(runs) == before
        if stood_still and all(note_of(run.folder).get("stood") for run in left):  # caches may have grown, once
            slow = [run for run in left if run.exit_status in (None, RESUME_ME) or run.exit_status < 0]
            ended(slow, "error: it came no further in two jobs' whole time, and would not in another: raise --time")
            ended([run for run in left if run not in slow])
            return 1
        for run in left:
            write_note(run.folder, note_of(run.folder) | {"stood": stood_still})
        return RESUME_ME
    return ended(left)


def refuse_without_gpu() -> None:
    """Raises ValueError where the job was given a GPU and cannot use it; a CPU would take its limit again and again."""
    answer = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"], capture_output=True, text=True
    )
    if answer.stdout.split()[-1:] != ["True"]:
        raise ValueError(
            f"torch finds no GPU on {socket.gethostname()}, where this job asked for one: see nvidia-smi there"
        )


def state_of(runs: list[Job]) -> list[tuple]:
    """What the runs have saved: their checkpoints, and whether they are finished."""
    return [
        (run.finished, sorted((file.name, file.stat().st_mtime_ns) for file in (run.folder / CHECKPOINTS).glob("*")))
        for run in runs
    ]


def had_its_time(begin: float, asked: Mapping[str, Any]) -> bool:
    """Whether the job's limit is near, so that it was nothing else that ended it. begin: as time.time() has it."""
    limit = asked.get("limit") or math.inf
    start = float(os.environ.get("SLURM_JOB_START_TIME") or begin)
    end = float(os.environ.get("SLURM_JOB_END_TIME") or start + limit)
    return time.time() > end - asked.get("warning", 120) - min(EARLY, limit / 4)


def ended(runs: list[Job], why: str = "") -> int:
    """Notes how runs ended that are not finished; the exit status."""
    for run in runs:
        write_note(run.folder, note_of(run.folder) | {"ended": why or run.status})
    return 1 if runs else 0


if __name__ == "__main__":
    sys.exit(main())
