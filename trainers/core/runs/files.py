"""Files and folders that survive killed processes: a file is there whole or not at all, a folder has one worker."""

import contextlib
import csv
import io
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

HOLDER = ".holder"  # who works in a folder, in words; the lock itself is the kernel's, on .lock

CHECKPOINTS = "prompt_learner"  # Dassl's folder for them in a run's


def user_cache() -> Path:
    """This project's folder in the user's cache."""
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "mocoop"


def this_process() -> str:
    """In words."""
    return f"process {os.getpid()} on {socket.gethostname()}"


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


def csv_of(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as the text of a CSV file, the header first."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_for_user(path: Path, text: str) -> None:
    """Writes to a path that the user named. A file or a link's target is written completely or not at all; a device or
    a pipe is written to directly.

    Raises OSError, of a folder too.
    """
    content = text.encode("utf-8", "backslashreplace")  # of file names that are no UTF-8
    if path.exists() and not path.is_file() and not path.is_dir():
        with open(path, "wb") as file:
            file.write(content)
    else:
        write_atomically(Path(os.path.realpath(path)), content)


def as_cell(text: str) -> str:
    """Text that a spreadsheet takes for text, and not for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def printable(text: str) -> str:
    """Text for a terminal: what would steer it, or is no UTF-8, as its escape."""
    safe = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in safe)


@contextlib.contextmanager
def held(folder: Path, advice: str = "wait for it") -> Iterator[None]:
    """Makes `folder` and keeps other processes out while inside; the lock goes with the process, however it ends.

    When another process is inside, raises InUseError with the holder and `advice`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:  # below a folder like /proc, which says no more
        raise ValueError(f"{folder} cannot be made: choose another folder") from None
    lock = FileLock(folder / ".lock")
    holder = folder / HOLDER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = holder.read_text().strip() if holder.is_file() else "another process"
        if f" on {socket.gethostname()}," not in who:  # without flock nobody knows whether it lives
            advice += f"; if it is there no more, remove {folder / '.lock'}"
        raise InUseError(f"{folder} is in use by {who}: {advice}") from None
    try:
        write_atomically(
            holder,
            f"{this_process()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode(),
        )
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
