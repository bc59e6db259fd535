"""Runs the project's programs as users do, without the seconds in which Python loads torch: forked from a process that has
it, with arguments, environment, working folder and output of their own.

`run` behaves as subprocess.run(capture_output=True, text=True). What depends on how Python starts is started anew.
"""

import contextlib
import json
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
AT_START = ("PYTHON", "OMP_", "CUDA", "MALLOC", "LD_", "HF_", "MOCOOP_COLD")  # read when Python or a library is loaded
_server: subprocess.Popen | None = None
_started: dict[str, str] = {}


def run(
    *words: object, cwd: Path | str = ROOT, env: dict[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess:
    """`python WORDS`."""
    global _server, _started
    command, wanted = [str(word) for word in words], dict(os.environ if env is None else env)
    if _server is None or _server.poll() is not None:
        _started = dict(os.environ)
        pipe = subprocess.PIPE
        _server = subprocess.Popen([sys.executable, __file__], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    parting = {name for name in wanted.keys() | _started if wanted.get(name) != _started.get(name)}
    on_a_gpu = "MOCOOP_TEST_GPU" in os.environ  # which no process may be forked from
    if on_a_gpu or not command[0].endswith(".py") or any(name.startswith(AT_START) for name in parting):
        whole = [sys.executable, *command]
        return subprocess.run(whole, capture_output=True, text=True, cwd=cwd, env=wanted, timeout=timeout)
    with tempfile.TemporaryDirectory(prefix="forked-") as folder:
        said = [Path(folder, name) for name in ("out", "err")]
        asked = {
            "words": command,
            "cwd": str(cwd),
            "env": wanted,
            "said": [str(path) for path in said],
            "limit": timeout,
        }
        stdin: Any = _server.stdin
        stdout: Any = _server.stdout
        stdin.write(json.dumps(asked) + "\n")
        stdin.flush()
        status = json.loads(stdout.readline())
        out, err = (path.read_text() for path in said)
    if status is None:
        raise subprocess.TimeoutExpired(command, timeout, out, err)
    return subprocess.CompletedProcess([sys.executable, *command], status, out, err)


def _serve() -> None:
    """Answers each line on standard input with an exit status; None where the limit was passed."""
    sys.path[0] = str(ROOT)
    import sklearn.metrics  # noqa: F401
    import torch
    import torch.utils.tensorboard

    import datasets
    import train  # noqa: F401
    from trainers.methods import register_all

    torch.set_num_threads(1)
    register_all()
    datasets.register_all()
    context = multiprocessing.get_context("fork")
    for line in sys.stdin:
        asked = json.loads(line)
        process = context.Process(target=_do, args=(asked,))
        process.start()
        process.join(asked["limit"])
        if process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
            print("null", flush=True)
        else:
            print(process.exitcode, flush=True)


def _do(asked: dict[str, Any]) -> None:
    import numpy as np

    os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    streams: list[IO[str]] = [open(path, "w", buffering=1, errors="backslashreplace") for path in asked["said"]]  # noqa: SIM115
    for descriptor, stream in ((1, streams[0]), (2, streams[1])):
        os.dup2(stream.fileno(), descriptor)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    sys.stdin, sys.stdout, sys.stderr = (open(n, "w" if n else "r", 1, closefd=False) for n in range(3))  # noqa: SIM115
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    random.seed()
    np.random.seed()
    script = Path(asked["words"][0])
    sys.argv, sys.path[0] = asked["words"], str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    _serve()
