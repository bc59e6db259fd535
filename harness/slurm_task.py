"""One task of a job array on a cluster: executes its runs, several at a time, and records their outcome in their
folders.

The input on standard input is written by harness/slurm.py. Exit status: 0 all finished, 75 asked to stop and to be
queued again, 1 otherwise.
"""

import json
import os
import sys
from pathlib import Path

from harness.plan import Job
from harness.preflight import check_settings
from harness.runner import Runner, starter_for
from harness.slurm import note_of, write_note
from trainers.core.training.stopping import RESUME_ME


def main() -> int:
    asked = json.load(sys.stdin)
    number = os.environ["SLURM_ARRAY_TASK_ID"]
    runs = [
        Job(Path(run["folder"]), run["arguments"], dataset=run["dataset"], shots=run["shots"])
        for run in asked["tasks"][number]
    ]
    print(f"job {os.environ['SLURM_ARRAY_JOB_ID']}_{number}: {len(runs)} runs", flush=True)
    at_once = min(asked["jobs"], len(runs))
    try:
        starter = starter_for(runs, check_settings(runs, []), at_once * asked["ranks"])
    except ValueError as error:
        return ended(runs, f"error: {error}")
    runner = Runner(runs, starter, at_once, [], asked["ranks"])
    runner.go()
    left = [run for run in runs if not run.finished]
    if runner.stopping or any(run.exit_status == RESUME_ME for run in left):
        return RESUME_ME
    return ended(left)


def ended(runs: list[Job], why: str = "") -> int:
    """Notes how runs ended that are not finished; the exit status."""
    for run in runs:
        write_note(run.folder, note_of(run.folder) | {"ended": why or run.status})
    return 1 if runs else 0


if __name__ == "__main__":
    sys.exit(main())
