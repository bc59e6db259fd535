"""Everything printed goes to the screen and into log.txt."""

import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO


class Logger:
    """A stand-in for sys.stdout that also writes to a file, line by line; use it as a context manager or close it."""

    def __init__(self, fpath: str | os.PathLike | None = None) -> None:
        self.console: Any = sys.stdout
        self.file: TextIO | None = None
        if fpath is not None:
            Path(fpath).parent.mkdir(parents=True, exist_ok=True)
            self.file = open(fpath, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115 (closed by close())

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.console, name)  # encoding, isatty and the like are the console's

    def write(self, message: str) -> None:
        self.console.write(message)
        if self.file is not None:
            self.file.write(message)

    def flush(self) -> None:
        self.console.flush()
        if self.file is not None:
            self.file.flush()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


def setup_logger(output: str | None = None) -> None:
    """Sends standard output to `output` (a .txt or .log file, or a folder, where it is log.txt) as well.

    A log that exists already is kept: the new one gets the time in its name, and a number behind it where two runs began
    in the same second.
    """
    if not output:
        return
    path = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    if os.path.exists(path):
        path = dated = path + time.strftime("-%Y-%m-%d-%H-%M-%S")
        number = 1
        while os.path.exists(path):
            number += 1
            path = f"{dated}-{number}"
    sys.stdout = Logger(path)  # type: ignore[assignment]
