"""Submits runs to Slurm: job arrays, dependencies, several runs per job, and the state of the queue.

Slurm does the scheduling. The only state here is a note in each run's folder with its job's number. Everything else
comes from the queue and the folders, so the same command submits only runs that are neither finished nor queued.
"""

import getpass
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.plan import Job
from harness.report.collect import logs_of, progress_of_log, read_log
from harness.report.watch import running
from trainers.core.runs.files import write_atomically
from trainers.core.settings.errors import did_you_mean
from trainers.core.training.stopping import RESUME_ME
from trainers.paths import ROOT

NOTE = ".job.json"  # in a run's folder
MOST_TASKS = 1000  # of an array: Slurm's usual MaxArraySize allows no more
MOST_RUNS = 3000  # of an array: they stand in its script, of which Slurm takes 4 MB
# what runs are found again by and wait for, and what the scripts rely on: not for somebody's own words
OURS = {"--job-name": "-J", "--array": "-a", "--output": "-o", "--dependency": "-d", "--signal": "", "--requeue": "",
        "--no-requeue": "", "--open-mode": "", "--parsable": "", "--hold": "-H", "--wait": "-W", "--clusters": "-M",
        "--cluster": "", "--priority": ""}  # fmt: skip
KINDS = {"partition": str, "account": str, "time": str, "memory": str, "cpus": int, "gres": str, "warning": int,
         "sbatch": list}  # fmt: skip


@dataclass(frozen=True)
class SlurmRequest:
    """What every job requests from the cluster: the keys of configs/cluster.yaml, and the runs and devices per job."""

    partition: str = ""
    account: str = ""
    time: str = ""
    memory: str = ""
    cpus: int = 0
    gres: str = ""
    warning: int = 120
    sbatch: list[str] = field(default_factory=list)
    pack: int = 1  # runs that share a job's devices
    ranks: int = 1  # devices of a run

    @classmethod
    def of(cls, given: Mapping[str, Any], pack: int, ranks: int) -> "SlurmRequest":
        """configs/cluster.yaml, with what of `given` is not None in its place. Raises ValueError for nonsense."""
        file = ROOT / "configs" / "cluster.yaml"
        try:  # as it stands: YAML takes 2:00:00 for a number
            asked: dict[str, Any] = yaml.load(file.read_text(), Loader=yaml.BaseLoader) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"{file} cannot be read: {str(error).splitlines()[0]}") from None
        for key in asked:
            if key not in KINDS:
                raise ValueError(f'"{key}" in {file} is unknown{did_you_mean(key, KINDS)}')
        asked |= {key: value for key, value in given.items() if value is not None}
        found = {}
        for key, value in asked.items():
            kind = KINDS[key]
            try:
                found[key] = kind(value) if value else kind()
                fits = not value or isinstance(value, list) == (kind is list)
            except ValueError:
                fits = False
            if not fits:
                raise ValueError(f"{key} of a cluster's jobs is {value!r}: see {file}")
        for word in found.get("sbatch", []):
            name = str(word).split("=")[0]
            ours = next((own for own, short in OURS.items() if name == own or (short and name.startswith(short))), None)
            if ours:
                raise ValueError(f'"{word}" is no word for sbatch here: the scripts set {ours} themselves')
        limit = _seconds(found.get("time", ""))
        if limit is not None and found.get("warning", 0) >= limit:
            raise ValueError(
                f"a warning {found['warning']} seconds before the limit of {found['time']} leaves no time: lower warning"
            )
        return cls(**found, pack=pack, ranks=ranks)

    def words(self) -> list[str]:
        """For sbatch."""
        said = {"partition": self.partition, "account": self.account, "time": self.time, "mem": self.memory,
                "cpus-per-task": self.cpus or "", "gres": f"{self.gres}:{self.ranks}" if self.gres else ""}  # fmt: skip
        return [f"--{name}={value}" for name, value in said.items() if value] + [str(word) for word in self.sbatch]


@dataclass
class Array:
    """A job array: of each task its runs; task -> runs. after: what Slurm waits for."""

    tasks: Mapping[int, Sequence[Job]]
    after: str = ""
    of: "Array | None" = None  # each task waits for the same task of that one
    number: str = ""  # Slurm's, once it has it

    def words(self, name: str, logs: Path, wishes: SlurmRequest) -> list[str]:
        """Options for sbatch's command line, which override the SBATCH_ variables; options in the script would not."""
        return [f"--job-name={name}", f"--array={','.join(map(str, self.tasks))}", "--ntasks=1",
                f"--output={logs}/%x-%A_%a.log", "--open-mode=append", "--requeue", f"--signal=USR1@{wishes.warning}",
                *wishes.words()]  # fmt: skip

    def script(self, wishes: SlurmRequest) -> str:
        """The script for sbatch. It contains the runs, so no other file is needed until it starts."""
        asked = {
            "jobs": wishes.pack, "ranks": wishes.ranks, "warning": wishes.warning,
            "limit": _seconds(wishes.time), "gpu": "gpu" in wishes.gres,
            "tasks": {str(number): [as_record(run) for run in runs] for number, runs in self.tasks.items()},
        }  # fmt: skip
        step = ["srun", "--ntasks=1", *([f"--cpus-per-task={wishes.cpus}"] if wishes.cpus else []),
                sys.executable, "-m", "harness.slurm_task"]  # fmt: skip
        requeued = f"scontrol show config | grep -Eq '^RequeueExit +=(.*[ ,])?{RESUME_ME}'"
        return "\n".join(
            [
                "#!/bin/bash",
                f"cd {shlex.quote(str(ROOT))} || exit 1",
                # a step of its own, since only steps are told in time that the job is about to end
                f"{shlex.join(step)} <<'RUNS'",
                json.dumps(asked),
                "RUNS",
                "status=$?",
                f"if [ $status = {RESUME_ME} ] && ! {requeued}; then",
                # and waits to be ended by it: a job that ends first has failed, and what waits for it goes with it
                '    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" && sleep 300',
                "fi",
                "exit $status",
                "",
            ]
        )


def _seconds(limit: str) -> int | None:
    """Of a time in Slurm's notation: minutes, minutes:seconds, h:m:s, days-h, days-h:m, days-h:m:s; None for others."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit)
    if not found:
        return None
    days, *rest = (int(part) if part is not None else None for part in found.groups())
    a, b, c = rest
    if days is not None or c is not None:
        return (((days or 0) * 24 + (a or 0)) * 60 + (b or 0)) * 60 + (c or 0)
    return (a or 0) * 60 + (b or 0)


def as_record(run: Job) -> dict[str, Any]:
    return {
        "folder": str(run.folder.absolute()),
        "arguments": run.arguments,
        "dataset": run.dataset,
        "shots": run.shots,
    }


def arrays(runs: Sequence[Job], pack: int, queued: Mapping[Path, str]) -> list[Array]:
    """The arrays for `runs`, none of which is finished or queued, each after the array that it waits for.

    queued: folder -> job submitted before. An evaluation is the task with its training's number, in an array that waits
    for the training array task by task.
    """
    todo = {run.folder for run in runs}
    alone, waiting, later = [], defaultdict(list), defaultdict(list)
    for run in runs:
        if run.needs is not None and run.needs.folder in todo:
            later[run.needs.folder].append(run)
        elif run.needs is not None and run.needs.folder in queued:
            waiting[queued[run.needs.folder]].append(run)
        else:
            alone.append(run)
    found = []
    most = max(1, min(MOST_TASKS, MOST_RUNS // pack)) * pack
    for first in range(0, len(alone), most):
        some = alone[first : first + most]
        array = Array(_packed(some, pack))
        found.append(array)
        for layer in range(max(len(later[run.folder]) for run in some)):
            tasks = {i: [later[run.folder][layer] for run in own if layer < len(later[run.folder])]
                     for i, own in array.tasks.items()}  # fmt: skip
            found.append(Array({i: own for i, own in tasks.items() if own}, of=array))
    return found + [Array(_packed(own, pack), f"afterok:{job}") for job, own in waiting.items()]


def _packed(runs: Sequence[Job], pack: int) -> dict[int, Sequence[Job]]:
    return {i: runs[first : first + pack] for i, first in enumerate(range(0, len(runs), pack))}


def submit(runs: Sequence[Job], queued: Mapping[Path, str], name: str, logs: Path, wishes: SlurmRequest) -> list[str]:
    """Hands runs over and notes their jobs in their folders; the arrays' numbers.

    An array is held until its notes are written, so that no job runs, and none is left, that nobody knows of. Raises
    ValueError with Slurm's reason, and what it has taken before.
    """
    logs.mkdir(parents=True, exist_ok=True)
    handed: list[Array] = []
    for array in arrays(runs, wishes.pack, queued):  # each after what it waits for, whose number is then known
        after = f"aftercorr:{array.of.number}" if array.of is not None else array.after
        words = array.words(name, logs, wishes)
        words += [f"--dependency={after}", "--kill-on-invalid-dep=yes"] if after else []
        try:
            array.number = job_number(call("sbatch", "--parsable", "--hold", *words, text=array.script(wishes)))
            try:
                note_jobs(array, name, logs)
                call("scontrol", "release", array.number)
            except BaseException:
                call("scancel", array.number)
                raise
        except ValueError as error:
            if not handed:
                raise
            count = sum(len(own) for before in handed for own in before.tasks.values())
            taken = f"{count} of {len(runs)} runs were handed over as {', '.join(one.number for one in handed)}"
            raise ValueError(f"{taken}; then {error}. The same command hands over the rest later") from None
        handed.append(array)
    return [array.number for array in handed]


def job_number(said: str) -> str:
    """Of what sbatch says, whatever a site says around it. Raises ValueError where there is none."""
    found = re.findall(r"^\s*(\d+)\s*(?:;.*)?$", said, re.MULTILINE)
    if not found:
        raise ValueError(f"sbatch said {said.strip()[:200]!r}, which is no job's number: look into the queue")
    return found[-1]


def note_jobs(array: Array, name: str, logs: Path) -> None:
    for task, own in array.tasks.items():
        for run in own:
            run.folder.mkdir(parents=True, exist_ok=True)
            job = f"{array.number}_{task}"
            write_note(run.folder, {"job": job, "name": name, "log": str(logs / f"{name}-{job}.log")})


def write_note(folder: Path, note: Mapping[str, str]) -> None:
    write_atomically(folder / NOTE, json.dumps(note).encode())


def note_of(folder: Path) -> dict[str, Any]:
    """What the folder of a run says of its job; empty where it says nothing."""
    try:
        found = json.loads((folder / NOTE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def call(*command: str, text: str = "") -> str:
    """What one of Slurm's programs says. Raises ValueError, in one line, when it refuses or is not there."""
    env = {name: value for name, value in os.environ.items() if name != "SBATCH_WAIT"}  # for jobs that are held
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, errors="replace", check=False, env=env
        )
    except FileNotFoundError:
        raise ValueError(f"{command[0]} is not here: start this on a machine of a Slurm cluster") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()
        errors = [line.strip() for line in said if "error:" in line]  # a site's own lines stand before and between them
        raise ValueError(f"Slurm refused: {'; '.join(errors) or said[0]}")
    return done.stdout


@dataclass(frozen=True)
class InQueue:
    """A job, or a task of an array, as squeue has it."""

    state: str
    reason: str
    name: str


def queue() -> dict[str, InQueue]:
    """This user's jobs by number ("1234_5"). Raises ValueError when Slurm does not answer."""
    said = call("squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i|%T|%r|%j")
    rows = [line.split("|", 3) for line in said.splitlines() if line.count("|") >= 3]
    return {number.strip(): InQueue(state, reason, name.strip()) for number, state, reason, name in rows}


def queued_jobs(runs: Sequence[Job], jobs: Mapping[str, InQueue]) -> dict[Path, str]:
    """Of the runs that are in the queue, which job has them."""
    found = {}
    for run in runs:
        note = note_of(run.folder)
        there = jobs.get(str(note.get("job")))
        if there is not None and there.name == note.get("name"):  # numbers may begin anew
            found[run.folder] = note["job"]
    return found


def standing(run: Job, jobs: Mapping[str, InQueue]) -> tuple[str, str]:
    """Where a run is, in a word, and more of it: finished, running, queued, failed, stopped, to do."""
    if run.finished:
        return "finished", ""
    number, so_far = queued_jobs([run], jobs).get(run.folder), progress(run.folder)
    if number is not None and jobs[number].state != "PENDING":
        return "running", f"job {number}, {so_far or jobs[number].state.lower()}"
    if number is not None:
        return "queued", f"job {number} ({jobs[number].reason})" + (f", stopped at {so_far}" if so_far else "")
    if running(run.folder):
        return "running", so_far
    note, logs = note_of(run.folder), logs_of(run.folder)
    if note.get("ended") and any(log.stat().st_mtime > (run.folder / NOTE).stat().st_mtime + 1 for log in logs):
        note = {}  # it went on elsewhere since
    if note.get("ended"):
        return "failed", note["ended"]
    if note and _ended_silently(run):
        return "failed", f"job {note.get('job')} ended without a word: see {note.get('log')}"
    if note:
        return "failed", f"job {note.get('job')} is gone before it began: cancelled, or what it waited for failed"
    return ("stopped", so_far) if logs else ("to do", "")


def _ended_silently(run: Job) -> bool:
    """Whether a run that is not finished has a log from its job but no recorded end."""
    note = note_of(run.folder)
    return not run.finished and "ended" not in note and Path(str(note.get("log"))).is_file()


def progress(folder: Path) -> str:
    """Where a run's newest log says that it is: epoch, and time left."""
    try:
        found = progress_of_log(read_log(logs_of(folder)[-1]))
    except (OSError, IndexError):
        return ""
    return "epoch {epoch}/{max_epoch}, batch {batch}, {eta} left".format(**found) if "epoch" in found else ""


def until_done(runs: Sequence[Job], every: float = 5.0) -> None:
    """Waits while any of `runs` is in the queue, and says when something changes."""
    told = ""
    while True:
        try:
            jobs = queue()
        except ValueError as error:  # a controller that is started anew answers again
            words, left = f"{error}; asking again", True
        else:
            counts: dict[str, int] = defaultdict(int)
            for run in runs:
                counts[standing(run, jobs)[0]] += 1
            words = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
            left = bool(queued_jobs(runs, jobs))
        if words != told:
            print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)
            told = words
        if not left:
            break
        time.sleep(every)
    end = time.monotonic() + 60  # network file systems show new files late
    while time.monotonic() < end and any(map(_ended_silently, runs)):
        time.sleep(every)
