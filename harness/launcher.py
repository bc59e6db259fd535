"""Starts train.py for a run: in a new Python, or forked from a process that has everything loaded (fork_server.py)."""

import contextlib
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import IO, Any

from harness import fork_server as warm
from trainers.core.training.stopping import RESUME_ME
from trainers.paths import ROOT


class Started:
    """A started run, in one process or one per rank: where to read its output, and how to end it and wait for it."""

    def __init__(self, processes: Sequence[Any], stream: IO[bytes] | Connection) -> None:
        self._processes, self.stream = processes, stream

    def send(self, number: int) -> None:
        """Sends a signal to each of its processes that is still there."""
        for process in self._processes:
            if process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    def wait(self) -> int:
        """Its exit status; negative: the signal that ended it. With several ranks, that of a rank that was killed or
        failed."""
        statuses = []
        for process in self._processes:
            if isinstance(process, subprocess.Popen):
                statuses.append(process.wait())
            else:
                process.join()
                statuses.append(process.exitcode)
        self.stream.close()
        return min(statuses, key=lambda status: (status >= 0, status in (0, RESUME_ME), status == 0))


def free_port() -> int:
    """A port with no listener on this machine, below the ephemeral ports (from 32768 on)."""
    while True:
        port = random.SystemRandom().randrange(10000, 32768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def environments(ranks: int) -> list[dict[str, str]]:
    """Environment variables that tell each process of a run its rank, as torchrun does."""
    if ranks == 1:  # also inside a step of several tasks, where Slurm's words say otherwise
        return [{"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    common |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(ranks))
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


class Cold:
    """Each run in a new Python."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment}

    def start(self, arguments: list[str], environment: Mapping[str, str], quiet: bool, ranks: int = 1) -> Started:
        """Starts `train.py ARGUMENTS`, which this process's Ctrl-C does not reach. quiet: its output is read, not shown."""
        ours, theirs = multiprocessing.Pipe(duplex=False)
        processes: list[subprocess.Popen] = []
        try:
            for own in environments(ranks):
                process = subprocess.Popen(
                    [sys.executable, str(ROOT / "train.py"), *arguments],
                    cwd=ROOT,
                    env={**self._environment, **environment, **own},
                    stdout=theirs.fileno() if quiet else None,
                    stderr=theirs.fileno(),
                    start_new_session=True,
                )
                processes.append(process)
        except OSError:  # the other ranks would wait for the one that is not there
            for process in processes:
                process.kill()
                process.wait()
            ours.close()
            raise
        finally:
            theirs.close()
        return Started(processes, ours)


class Warm:
    """Each run forked from one process that has torch, the methods and these backbones loaded."""

    def __init__(self, environment: Mapping[str, str], backbones: Iterable[str], seeds: Iterable[int]) -> None:
        """Starts loading in the background."""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([warm.__name__])
        asked = json.dumps({"backbones": list(backbones), "seeds": list(seeds)})
        self._cold, self._environment = environment, {**environment, warm.ASKED: asked}
        self._alone = threading.Lock()
        self._ensure_running()

    def _ensure_running(self) -> None:
        """Starts the process that runs are forked from, also when it was killed."""
        from multiprocessing import forkserver  # not every system has one

        before = dict(os.environ)
        os.environ.update(self._environment)  # what it begins with
        try:
            forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def start(self, arguments: list[str], environment: Mapping[str, str], quiet: bool, ranks: int = 1) -> Started:
        """As Cold.start."""
        ours, theirs = self._context.Pipe(duplex=False)
        processes: list[Any] = []
        try:
            with self._alone:
                self._ensure_running()
                for own in environments(ranks):
                    process = self._context.Process(
                        target=warm.run, args=(arguments, {**environment, **own}, theirs, quiet)
                    )
                    process.start()
                    processes.append(process)
                    # else the next start() would also wait for it, and two threads would read its one exit status
                    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
        except (EOFError, OSError):  # what runs are forked from was killed while it was loading
            ours.close()
            for process in processes:
                process.kill()
            return Cold(self._cold).start(arguments, environment, quiet, ranks)
        finally:
            theirs.close()
        return Started(processes, ours)


def starter(environment: Mapping[str, str], backbones: Iterable[str], seeds: Iterable[int]) -> Cold | Warm:
    """Warm if possible. MOCOOP_COLD=1 selects Cold; only on Linux is a fork safe after torch is loaded."""
    if sys.platform != "linux" or os.environ.get("MOCOOP_COLD", "") not in ("", "0"):
        return Cold(environment)
    return Warm(environment, backbones, seeds)
