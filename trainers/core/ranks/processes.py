"""The cores that a process may use, and the data-loading workers that end with it."""

import atexit
import multiprocessing.util  # registers its own end, which waits for workers: it has to come after end_workers
import os
import signal
import threading
from collections.abc import Mapping

SHARING = "MOCOOP_RUNS_ON_A_GPU"  # in the environment: how many


def cores(env: Mapping[str, str] = os.environ) -> int:
    """Of this machine's cores those that this process may use; of several ranks here, its share."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    of_task = int(env.get("SLURM_CPUS_PER_TASK") or 0)
    if of_task and int(env.get("SLURM_STEP_NUM_TASKS") or 1) > 1:  # a task for each rank
        return min(allowed, of_task)
    return max(1, min(allowed, of_task or allowed) // int(env.get("LOCAL_WORLD_SIZE") or 1))


def leave_signals_to_the_main_process(worker: int) -> None:
    """For a data-loading worker, as it starts: a SIGTERM or SIGHUP to the whole process group is not for it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


@atexit.register
def end_workers() -> None:
    """For the end of a process: Python would use the SIGTERM that they ignore, and wait for ever."""
    left = multiprocessing.active_children()
    if left and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch takes a killed worker for an accident
    for worker in left:
        worker.kill()
