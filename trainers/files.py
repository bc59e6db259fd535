"""Files and folders that survive killed processes: a file is there whole or not at all, a folder has one worker."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path


class InUseError(ValueError):
    """Another process works in the folder; the message says which, and what to do."""


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, on disk when it returns; leaves nothing behind on failure."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path, advice: str = "wait for it", wait: bool = False) -> Iterator[None]:
    """Makes `folder` and keeps other processes out while inside; the lock goes with the process, however it ends.

    When another process is inside, waits for it, or raises InUseError with the holder and `advice`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise InUseError(f"{folder} is in use by {holder}: {advice}") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        lock.flush()
        yield
