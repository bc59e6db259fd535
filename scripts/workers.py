"""Starting train.py for a run: in a new Python, or forked from a process that has everything loaded (scripts/warm.py)."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import IO, Any

from scripts import warm
from trainers.core.settings import ROOT


class Started:
    """A run in a process of its own: where its words can be read, and how to end it and wait for it."""

    def __init__(self, process: Any, stream: IO[bytes] | Any) -> None:
        self._process, self.stream = process, stream

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self) -> int:
        """Its exit status; negative: the signal that ended it."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.wait()
        self._process.join()
        self.stream.close()
        status: int = self._process.exitcode
        return status


class Cold:
    """Each run in a new Python."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment}

    def start(self, arguments: list[str], environment: Mapping[str, str], quiet: bool) -> Started:
        """Starts `train.py ARGUMENTS`, which this process's Ctrl-C does not reach. quiet: its output is read, not shown."""
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *arguments],
            cwd=ROOT,
            env={**self._environment, **environment},
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.STDOUT if quiet else subprocess.PIPE,
            start_new_session=True,
        )
        return Started(process, process.stdout if quiet else process.stderr)


class Warm:
    """Each run forked from one process that has torch, the methods and these backbones loaded."""

    def __init__(self, environment: Mapping[str, str], backbones: Iterable[str], seeds: Iterable[int]) -> None:
        """Begins to load, and does not wait for it."""
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

    def start(self, arguments: list[str], environment: Mapping[str, str], quiet: bool) -> Started:
        """As Cold.start."""
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=warm.run, args=(arguments, dict(environment), theirs, quiet))
        try:
            with self._alone:
                self._ensure_running()
                process.start()
                # else the next start() would look after it, too, and two threads would read its one exit status
                multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
        except (EOFError, OSError):  # what runs are forked from was killed while it was loading
            ours.close()
            return Cold(self._cold).start(arguments, environment, quiet)
        finally:
            theirs.close()
        return Started(process, ours)


def starter(environment: Mapping[str, str], backbones: Iterable[str], seeds: Iterable[int]) -> Cold | Warm:
    """Warm where it can be: MOCOOP_COLD=1 asks for the other, and only Linux forks safely what has loaded torch."""
    if sys.platform != "linux" or os.environ.get("MOCOOP_COLD", "") not in ("", "0"):
        return Cold(environment)
    return Warm(environment, backbones, seeds)
