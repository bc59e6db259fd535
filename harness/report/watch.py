"""The runs that are going on below a folder, live: epoch, loss, time left."""

import os
import re
import socket
import sys
import time
from pathlib import Path

from tabulate import tabulate

from harness.plan import in_words
from trainers.core.runs.files import HOLDER

from .collect import Run, collect, logs_of


def running(folder: Path) -> bool:
    """Whether the process recorded in this folder is alive; for another machine, whether its log is recent.

    The lock itself is not tried, since that would briefly block a run that is starting.
    """
    try:
        file = folder / HOLDER
        holder = re.match(r"process ([1-9]\d{0,8}) on (\S+),", file.read_text()) if file.is_file() else None
        if holder is None:
            return False
        if holder[2] != socket.gethostname():
            return any(time.time() - log.stat().st_mtime < 300 for log in logs_of(folder))
        os.kill(int(holder[1]), 0)
    except PermissionError:
        return True  # it lives, and belongs to another user
    except OSError:
        return False
    return True


def live_view(root: Path) -> tuple[str, int]:
    """The table of unfinished runs, running ones first, and how many are running."""
    tree = collect(root)
    unfinished = [(running(r.file if r.file.is_dir() else r.file.parent), r) for r in tree.runs if not r.finished]
    unfinished.sort(key=lambda pair: not pair[0])
    rows = [_row(is_running, run) for is_running, run in unfinished]
    n_running = sum(is_running for is_running, _ in unfinished)
    done = sum(r.finished for r in tree.runs)
    summary = f"{time.strftime('%H:%M:%S')}  {done} finished, {n_running} running, {len(rows) - n_running} stopped"
    header = ["", "protocol", "dataset", "method", "shots", "seed", "epoch", "loss", "left", "last line"]
    return (summary + ("\n\n" + tabulate(rows, headers=header) if rows else "")), n_running


def _row(is_running: bool, run: Run) -> list[object]:
    details = run.details
    epoch = f"{details['epoch']}/{details['max_epoch']}" if "epoch" in details else "-"
    age = f"{time.time() - run.file.stat().st_mtime:.0f} s ago" if run.file.exists() else "-"
    name = f"{run.protocol} {run.part}".strip()
    left = details.get("eta", "-") if is_running else "-"
    if details.get("evaluates"):
        epoch, left = f"{epoch}, evaluating" if epoch != "-" else "evaluating", "-"
    state = "running" if is_running else "stopped"
    return [
        state,
        name,
        run.dataset,
        run.method,
        "-" if run.shots is None else in_words(run.shots),
        "-" if run.seed is None else run.seed,
        epoch,
        details.get("loss", "-"),
        left,
        age,
    ]


def watch(root: Path, every: float = 5.0) -> None:
    """Shows live_view until twice nothing was running. A terminal is redrawn; elsewhere the views follow each other."""
    idle = 0
    while idle < 2:
        text, n_running = live_view(root)
        clear = "\033[H\033[2J" if sys.stdout.isatty() else ""
        print(clear + text, flush=True)
        idle = 0 if n_running else idle + 1
        if idle < 2:
            time.sleep(every)
