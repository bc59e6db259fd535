"""What programs print to: a terminal, a pipe or a file."""

import errno
import io
import os
import sys
from typing import Any

RELAYED = "MOCOOP_RELAYED"  # in the environment of a run whose output scripts/run.py reads, and which ends with it


class Screen(io.FileIO):
    """Standard output or error. Where nobody reads it any more (a terminal that is closed, before SIGHUP says so, or
    `| head`), what is written goes nowhere: a run is not to end by that, and has its log.txt."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EPIPE):
                raise
            return len(data)


def set_up_screen() -> None:
    """Lets the screen show the names of files that are not UTF-8, with what it cannot show as \\x.., each line at once; and
    be gone, see Screen."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if type(stream) is io.TextIOWrapper and RELAYED not in os.environ:  # what stands in for one is left alone
            stream = io.TextIOWrapper(io.BufferedWriter(Screen(stream.fileno(), "w", closefd=False)), stream.encoding)
            setattr(sys, name, stream)
        stream.reconfigure(errors="backslashreplace", line_buffering=True)  # also in a file, where people look
