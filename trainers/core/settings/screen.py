"""What programs print to: a terminal, a pipe or a file."""

import contextlib
import errno
import io
import os
import sys
from typing import Any

# In the environment of a run whose output is read by scripts/run.py alone. Where that is killed, the run's next print
# fails and ends it, so that nothing trains on unseen.
RELAYED = "MOCOOP_RELAYED"


class Screen(io.FileIO):
    """Standard output or error, of which the reader may go away: a terminal is closed (SIGHUP says so later), or the other
    end of a pipe (`| head`). What is written then goes nowhere, and the program goes on."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._gone = {errno.EPIPE} | ({errno.EIO} if self.isatty() else set())

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in self._gone:
                raise
            return len(data)


def set_up_screen() -> None:
    """Makes standard output and error show every file name (with \\x.. where it is not UTF-8), write each line at once, and
    bear that their reader goes away."""
    for descriptor, name in enumerate(("stdout", "stderr"), 1):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if _is_the_process_own(stream, descriptor) and RELAYED not in os.environ:
            with contextlib.suppress(OSError):
                stream.flush()
            stream = io.TextIOWrapper(io.BufferedWriter(Screen(descriptor)), stream.encoding)
            setattr(sys, name, stream)
        stream.reconfigure(errors="backslashreplace", line_buffering=True)  # also in a file, where people look


def _is_the_process_own(stream: io.TextIOWrapper, descriptor: int) -> bool:
    """And not what somebody put there: a file, or a stream whose `write` is theirs, as Flower does."""
    raw = getattr(stream.buffer, "raw", stream.buffer)
    return type(raw) is io.FileIO and raw.fileno() == descriptor and "write" not in vars(stream)
