"""The process that runs are forked from, with torch, the methods and the backbones loaded.

Python's own forkserver imports this module, with ASKED in its environment (see harness/launcher.py). A forked run
behaves like `python train.py`, with the same random numbers and number of threads, but without the seconds of start-up.
This process never computes with several threads and never touches CUDA, since neither survives a fork.
"""

import contextlib
import io
import json
import multiprocessing
import os
import random
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from trainers.core.training.stopping import ASK_TO_STOP

NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"
ASKED = "MOCOOP_WARM"  # environment: JSON, {"backbones": [names], "seeds": [numbers]}

_threads = 0
_asked_before: str | None = None  # of NVML
_begins_anew = False  # if this process has touched the GPU, each run starts in its own Python


def load() -> None:
    """Loads everything that runs need, in a separate session, so that signals to a terminal's or a job's processes do
    not end it."""
    global _threads, _begins_anew, _asked_before
    signal.pthread_sigmask(signal.SIG_BLOCK, ASK_TO_STOP)  # these are for runs; this process ends with its client
    os.setsid()
    # clip asks torch for a GPU when it is imported; asked in this way, torch answers without touching it
    _asked_before = os.environ.get(NVML)
    os.environ[NVML] = "1"
    import sklearn.metrics  # noqa: F401
    import torch

    import datasets
    import train  # noqa: F401
    from trainers import methods
    from trainers.core.clip import preloaded as ahead
    from trainers.core.settings.configure import default_cfg

    with contextlib.suppress(ModuleNotFoundError):  # an extra
        import torch.utils.tensorboard
    nvml = getattr(torch.cuda, "_device_count_nvml", lambda: -1)  # -1: torch had to ask CUDA itself
    _begins_anew = torch.cuda.is_available() and (torch.version.hip is not None or nvml() < 0)
    _threads = torch.get_num_threads()
    torch.set_num_threads(1)
    asked: dict[str, Any] = json.loads(os.environ.pop(ASKED))
    with contextlib.redirect_stdout(io.StringIO()):
        methods.register_all()
        datasets.register_all()
        default_cfg()
        for name in asked["backbones"]:
            with contextlib.suppress(Exception):  # the run that needs it reports the error better
                ahead.open_ahead(name, asked["seeds"])


def run(arguments: list[str], environment: dict[str, str], pipe: Connection, quiet: bool) -> None:
    """In the forked process: `python train.py ARGUMENTS` with its exit status.

    environment: variables beside those of this process. pipe: takes standard error and, if `quiet`, standard output.
    """
    import numpy as np
    import torch

    import train
    from trainers.core.ranks.processes import end_workers

    if os.getsid(0) != os.getpid():
        os.setsid()
    del os.environ[NVML]  # a run asks CUDA itself, as train.py does
    os.environ.update(environment | ({NVML: _asked_before} if _asked_before is not None else {}))
    for descriptor in (1, 2) if quiet else (2,):
        os.dup2(pipe.fileno(), descriptor)
    pipe.close()
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    usual = multiprocessing.get_all_start_methods()[0]  # a forkserver's child would start its workers by it, too
    multiprocessing.set_start_method(usual, force=True)
    random.seed()
    np.random.seed()
    if torch.get_num_threads() != _threads:
        torch.set_num_threads(_threads)
    sys.argv = [train.__file__, *arguments]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASK_TO_STOP)
    if _begins_anew:
        os.execv(sys.executable, [sys.executable, *sys.argv])
    try:
        train.main()
    finally:
        end_workers()


if ASKED in os.environ:
    load()
