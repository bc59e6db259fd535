"""Runs a whole protocol for one or more methods: checks inputs, skips finished runs, resumes others, prints the table.

    python scripts/run.py mocoop main imagenet 16          few-shot on one dataset (name or folder, shots, optional config)
    python scripts/run.py mocoop base2new [dataset [seed]] train on base classes, test on base and new
    python scripts/run.py mocoop xd [source [targets ...]] train on the source, test on other datasets
    python scripts/run.py mocoop dg [source [targets ...]] train on the source, test on its variants
    python scripts/run.py mocoop ablation demo 16          few-shot, each part of the method changed in turn
    python scripts/run.py coop,lasp,mocoop base2new        one protocol for several methods, one table
    python scripts/run.py mocoop main small 16             all small benchmarks (docs/YARDSTICK.md); all: the eleven

Environment (each also an option): DATA (data), OUTPUT (output), SEEDS ("1 2 3"), SHOTS ("16"), CFG (the recipe's),
TAG (a name of your own for these settings, part of the runs' path), JOBS (runs at a time, 1), GPUS ("0,1": a run on
each; all that there are), GPUS_PER_RUN (1: devices that share each run), CLUSTER (slurm: hand the runs to it,
docs/SCALE.md). Further settings go to every run, as in OPTIM.MAX_EPOCH 10; paths among them are relative to the project.
"""

import argparse
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from harness import slurm as cluster
from harness.plan import PROTOCOLS, Job, Request, numbers, shots_in
from harness.preflight import FoundFault, check_folders, check_inputs, check_settings
from harness.runner import Runner, starter_for
from trainers.core.settings.configure import SHARED
from trainers.core.settings.screen import set_up_screen
from trainers.core.training.stopping import RESUME_ME
from trainers.paths import ROOT, from_project, version


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Options may stand before, between and after the words and settings, which are told apart in `split`."""
    env = os.environ
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"MoCoOp {version()}")
    parser.add_argument("method", help="a folder's name in scripts/: mocoop, coop, 2sfs, ..., or several: coop,lasp")
    parser.add_argument("protocol", help=", ".join(PROTOCOLS))
    parser.add_argument("words", nargs="*", help="see above, and settings")
    parser.add_argument("--data", default=env.get("DATA"), help="folder of the datasets (DATA; the project's data/)")
    parser.add_argument(
        "--output", default=env.get("OUTPUT"), help="folder of the runs (OUTPUT; the project's output/)"
    )
    parser.add_argument("--seeds", default=env.get("SEEDS"), help='"1 2 3" (SEEDS)')
    parser.add_argument(
        "--shots", default=env.get("SHOTS", "16"), help='pictures per class, as in "1 2 4 8 16", or all (SHOTS)'
    )
    parser.add_argument(
        "--cfg", default=env.get("CFG", ""), help="recipe: a file's name in configs/trainers/<Method> (CFG)"
    )
    parser.add_argument("--tag", default=env.get("TAG", ""), help="a name for these settings, part of the path (TAG)")
    parser.add_argument(
        "--folds",
        default="",
        help="cross-validation of own pictures without a test part: so many runs, one for each fold",
    )
    parser.add_argument("--joint", action="store_true", help="base2new: test with all classes as candidates, too")
    parser.add_argument("--jobs", default=env.get("JOBS", ""), help="runs at a time (JOBS)")
    parser.add_argument("--gpus", default=env.get("GPUS", ""), help='"0,1,2" (GPUS)')
    parser.add_argument(
        "--gpus-per-run", default=env.get("GPUS_PER_RUN", "1"), help="devices that share each training (GPUS_PER_RUN)"
    )
    cluster = parser.add_argument_group(
        "on a cluster", "what configs/cluster.yaml says, for this time; see docs/SCALE.md"
    )
    cluster.add_argument(
        "--cluster",
        default=env.get("CLUSTER", ""),
        help="slurm: hand the runs to it (CLUSTER)",
    )
    cluster.add_argument("--wait", action="store_true", help="until the cluster has done them, then print the table")
    cluster.add_argument("--pack", default=env.get("PACK", "1"), help="runs that share a job's devices (PACK)")
    for name, what in (("partition", ""), ("account", ""), ("time", ' of a job, "4:00:00"'), ("memory", ' of a job, "16G"'),
                       ("cpus", " of a job"), ("gres", ' that a device is, "gpu"; "" for none'),
                       ("warning", " before the limit, in seconds")):  # fmt: skip
        cluster.add_argument(f"--{name}", help=f"{name}{what}")
    cluster.add_argument("--sbatch", type=shlex.split, help='further words for sbatch, as in --sbatch="--qos=low"')
    parser.add_argument(
        "--verbose", action="store_true", help="show what each of several runs prints, which is in its log.txt"
    )
    parser.add_argument("--no-table", action="store_true", help="do not print the table at the end")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, or a cluster's scripts, and do nothing")
    parser.add_argument("--status", action="store_true", help="say where each run is, and do nothing")
    return parser.parse_intermixed_args(given)


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """The words of the protocol, and KEY value KEY value ... Raises ValueError for a key without a value."""
    plain, settings, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        looks_so = re.fullmatch(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+", word) and not Path(word).exists()  # LABELS.CSV
        if not (looks_so or word in SHARED):
            plain.append(word)
            continue
        if not rest:
            raise ValueError(f'settings come in pairs of key and value, but "{word}" stands alone')
        settings += [word, rest.pop(0)]
    return plain, settings


def _named(devices: str) -> list[str]:
    return [word for word in devices.replace(" ", ",").split(",") if word]


def visible_gpus() -> list[str]:
    """The name of each usable GPU for CUDA_VISIBLE_DEVICES; empty if there is at most one GPU."""
    own = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = listed_gpus() if own is None else _named(own)
    return found if len(found) > 1 else []


def listed_gpus() -> list[str]:
    """The number of each GPU that the driver knows."""
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # no driver, no NVIDIA
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()
    return []


def refuse_absent(gpus: list[str]) -> None:
    """Raises ValueError for numbers that are none of this machine's GPUs; a run there would take the CPU."""
    there = listed_gpus() if gpus else []
    absent = [gpu for gpu in gpus if gpu.isdigit() and there and gpu not in there]
    if absent:
        raise ValueError(f"GPUS names {', '.join(absent)}, and this machine has {', '.join(there)}: name some of these")


def gpus_to_share(settings: list[str], ranks: int) -> list[str]:
    """If no GPUs were named, all GPUs of this machine in sets of `ranks`; prints that they are used."""
    given = dict(zip(settings[::2], settings[1::2], strict=True))
    if given.get("USE_CUDA", "").lower() in ("false", "0"):
        return []
    found = visible_gpus()
    found = found[: len(found) // ranks * ranks]
    if found:
        each = "one run on each" if ranks == 1 else f"{ranks} for each run"
        print(f"Note: {len(found)} GPUs ({', '.join(found)}), {each}; GPUS={found[0]} takes the first alone")
    return found


@dataclass(frozen=True)
class Resources:
    """The resources for runs: how many at a time, on which devices, and devices per run."""

    jobs: int
    gpus: list[str]
    ranks: int


def seeds_of(given: str | None, folds: int) -> list[int]:
    """Those that were given, else one for each fold of a cross-validation, else 1 2 3."""
    usual = " ".join(map(str, range(1, folds + 1))) if folds else "1 2 3"
    return numbers(usual if given is None else given, "SEEDS", 0)


def one_number(text: str, name: str) -> int:
    """A whole number from 1 on. Raises ValueError for anything else, and for several."""
    found = numbers(text, name, 1)
    if len(found) > 1:
        raise ValueError(f'{name} is "{text}": use one number')
    return found[0]


def refuse_idle_words(args: argparse.Namespace, words: list[str]) -> None:
    """Raises ValueError for command-line options without effect in this call, and for an unknown cluster.

    Environment variables are not checked, since they may be meant for other calls.
    """
    if args.cluster not in ("", "slurm"):
        raise ValueError(f'CLUSTER is "{args.cluster}": use "slurm"')
    given = {word.split("=")[0] for word in sys.argv[1:] if word.startswith("--")}
    of_cluster = {"--wait", "--pack", "--sbatch", *(f"--{name}" for name in cluster.KINDS)}
    for word in sorted(given & of_cluster):
        if not args.cluster:
            raise ValueError(f"{word} is for a cluster: give --cluster slurm, too")
    if "--jobs" in given and args.cluster:
        raise ValueError("--jobs is for this machine: a cluster decides itself, or --pack")
    if args.status and args.wait:
        raise ValueError("--status and --wait exclude each other")
    takes_shots = args.protocol in ("main", "ablation") and len(words) > 1
    if "--shots" in given and takes_shots:
        raise ValueError(f'the shots are said twice, as "{words[1]}" and by --shots')
    if "--cfg" in given and args.protocol == "main" and len(words) > 2:
        raise ValueError(f'the config is said twice, as "{words[2]}" and by --cfg')
    if "--seeds" in given and args.protocol == "base2new" and len(words) > 1:
        raise ValueError(f'the seed is said twice, as "{words[1]}" and by --seeds')


def requested(args: argparse.Namespace) -> tuple[list[Request], Resources]:
    """The request for each method, and the resources. Raises ValueError, in one line."""
    words, settings = split(args.words)
    refuse_idle_words(args, words)
    ranks = one_number(args.gpus_per_run, "GPUS_PER_RUN")
    gpus = _named(args.gpus) if args.gpus or args.cluster else gpus_to_share(settings, ranks)
    if args.gpus and not args.cluster:
        refuse_absent(gpus)
    if len(gpus) % ranks:
        raise ValueError(f'GPUS_PER_RUN is {ranks}, but GPUS is "{args.gpus}": name {ranks} for each run')
    jobs = one_number(args.jobs, "JOBS") if args.jobs else len(gpus) // ranks or 1
    if args.tag and not re.fullmatch(r"[\w.+-]{1,60}", args.tag):
        raise ValueError(f'TAG is "{args.tag}": use up to 60 letters, digits, ".", "-", "+" or "_"')
    folds = one_number(args.folds, "--folds") if args.folds else 0
    requests = [
        Request(
            method, args.protocol, list(words), from_project(args.data, "data"), from_project(args.output, "output"),
            seeds_of(args.seeds, folds), shots_in(args.shots, "SHOTS"), args.cfg, args.tag, settings,
            args.joint, folds,
        )
        for method in dict.fromkeys(args.method.split(","))
    ]  # fmt: skip
    return requests, Resources(jobs, gpus, ranks)


def on_cluster(args: argparse.Namespace, runs: list[Job], means: Resources, output: Path) -> bool:
    """Submits runs that are neither finished nor queued, and waits if asked. Returns whether there is a table to
    show."""
    given = {key: getattr(args, key) for key in cluster.KINDS}
    wishes = cluster.SlurmRequest.of(given, one_number(args.pack, "PACK"), means.ranks)
    name = f"mocoop-{args.protocol}"
    logs = output.absolute() / "cluster"
    if args.dry_run:
        left = [run for run in runs if not run.finished]
        for array in cluster.arrays(left, wishes.pack, {}):
            print(f"# sbatch {shlex.join(array.words(name, logs, wishes))}\n{array.script(wishes)}")
        return False
    jobs = cluster.queue()
    queued = cluster.queued_jobs(runs, jobs)
    held = sorted({job.split("_")[0] for job in queued.values() if "held" in jobs[job].reason.lower()})
    if held:  # whoever handed them over was stopped in between, and perhaps before all were noted
        print(
            f"Note: {', '.join(held)} are held. After `scancel {' '.join(held)}` the same command hands them over anew"
        )
    left = [run for run in runs if not run.finished and run.folder not in queued]
    submitted = cluster.submit(left, queued, name, logs, wishes) if left else []
    print(f"{len(runs)} runs: {sum(run.finished for run in runs)} finished, {len(queued)} queued before, {len(left)} "
          f"handed to Slurm{' as ' + ', '.join(submitted) if submitted else ''}")  # fmt: skip
    if args.wait:
        cluster.until_done(runs)
        for run in runs:
            run.status = ": ".join(cluster.standing(run, {}))
    elif queued or left:
        print("The same command with --status says where they are, with --wait it ends with the table")
    return args.wait


def show_status(runs: list[Job]) -> None:
    """A line for each run."""
    try:
        jobs = cluster.queue()
    except ValueError as error:
        jobs = {}
        if any(cluster.note_of(run.folder) for run in runs):
            print(f"Note: {error}; what follows is read off the folders alone")
    rows = [(*cluster.standing(run, jobs), run.folder) for run in runs]
    print(tabulate([(state, folder, more) for state, more, folder in rows], tablefmt="plain"))


def main() -> int:
    args = parse_arguments()
    set_up_screen()
    args.protocol = "main" if args.protocol == "fewshot" else args.protocol  # as tables call it
    try:
        requests, means = requested(args)
        runs = [run for request in requests for run in request.runs()]
        os.chdir(ROOT)  # where train.py runs, and what relative paths in configs mean
        configurations = check_settings(runs, requests[0].settings)
        check_folders(runs, configurations)
        if (args.dry_run or args.status) and hasattr(signal, "SIGPIPE"):
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
        if args.status:
            show_status(runs)
            return 0
        if args.dry_run and not args.cluster:
            for run in runs:
                print("finished  " if run.finished else "to do     ", run.folder)
            return 0
        if args.cluster:
            check_inputs(runs, configurations)
            shows = on_cluster(args, runs, means, requests[0].output)
            if not shows:
                return 0
            return ending(args, runs, requests[0].output)
        started = starter_for(runs, configurations, means.jobs * means.ranks)  # loads while the inputs are checked
        check_inputs(runs, configurations)
    except (ValueError, FoundFault, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "status", 2)
    except KeyboardInterrupt:  # nothing has been started here
        return 130
    runner = Runner(runs, started, means.jobs, means.gpus, means.ranks, args.verbose)
    runner.go()
    status = ending(args, runs, requests[0].output)
    return RESUME_ME if runner.stopping else status


def ending(args: argparse.Namespace, runs: list[Job], output: Path) -> int:
    """Reports unfinished runs and prints the table of the others. Returns the exit status."""
    # one that failed may still have a result, which is of another model then
    unfinished = [run for run in runs if not run.finished or run.exit_status not in (None, 0)]
    for run in unfinished:
        print(f"not finished: {run.folder} ({run.status})", file=sys.stderr)
    if not args.no_table and any(run.finished for run in runs):
        from harness.report.collect import collect_runs
        from harness.report.tables import render, tables

        found = collect_runs([run.folder for run in runs], output)
        print("\n\n\n".join(render(table, "simple") for table in tables(found.runs, "accuracy")))
        for path, reason in found.unreadable.items():
            print(f"left out: {path} ({reason})", file=sys.stderr)
    return 1 if unfinished else 0
