"""What users are told: one line with what was wrong, with what value, and what to do."""

import contextlib
import difflib
import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import yaml

from .screen import set_up_screen


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """'; did you mean "..."?' with the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f'; did you mean "{near[0]}"?' if near else ""


def is_explained(error: BaseException) -> bool:
    """Whether the message alone tells what to do; a RuntimeError out of torch does so only for what one_line knows."""
    kind = type(error)
    of_torch = kind is RuntimeError or (issubclass(kind, RuntimeError) and kind.__module__.startswith("torch"))
    return not of_torch or is_memory(error) or _lost_worker(error)


def is_memory(error: BaseException) -> bool:
    """Whether memory has run out, of the machine or of a GPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(
            word in str(error)
            for word in (
                "can't allocate memory",
                "bad_alloc",
                "error: out of memory",
                "'out of memory'",
                "ALLOC_FAILED",
            )
        )
    )


def _lost_worker(error: BaseException) -> bool:
    """Torch says so, or the pipe through which the worker's tensors came breaks (a failed download is a plain OSError)."""
    return isinstance(error, ConnectionError | EOFError) or str(error).startswith("DataLoader worker (pid")


def waited_for(command: Sequence[str], **how: Any) -> int:
    """The exit status of a program that Ctrl-C reaches, too, and that ends in its own time."""
    with subprocess.Popen(command, **how) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def program(main: Callable[[], int]) -> int:
    """main() as a program of its own; its exit status. Ctrl-C ends it with 130 and no traceback, `| head` is no error."""
    set_up_screen()
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        return main()
    except KeyboardInterrupt:
        return 130


@contextlib.contextmanager
def believing(path: str | os.PathLike, advice: str) -> Iterator[None]:
    """For code that uses a file's content: any error inside becomes a ValueError that names the file.

    Errors that already name it, missing files and out-of-memory errors are passed on unchanged.
    """
    try:
        yield
    except FloatingPointError:
        raise
    except (
        ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, yaml.YAMLError,
    ) as error:  # fmt: skip
        if str(path) in str(error) or is_memory(error):
            raise
        if type(error) is ValueError:  # in our words, most often
            raise ValueError(f"{path}: {one_line(error)}") from error
        said = f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"{path} is damaged, or was changed by hand ({said[:200]}): {advice}") from error


def one_line(error: BaseException) -> str:
    """What was wrong and what to do."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line for line in text.splitlines() if line.strip()] or [type(error).__name__]
    if is_memory(error):
        return (
            f"out of memory ({lines[0][:120]}): in training, set MODEL.TEXT_CHUNK (prompts at a time) lower and start "
            "again, or DATALOADER.TRAIN_X.BATCH_SIZE, in another --output-dir; in testing, DATALOADER.TEST.BATCH_SIZE, of "
            "a trained run with --eval-only --model-dir RUN; in predict.py, --batch"
        )
    if _lost_worker(error):
        return (
            f"a data-loading worker was killed or died ({lines[0][:120]}), often for want of memory: lower "
            "DATALOADER.NUM_WORKERS or DATALOADER.CACHE_MB, then start again; the run continues"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{text}: make room, then start again; a run continues from its last checkpoint"
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and error.filename:
        return f"{text}: change what may be done there, or choose another place"
    return lines[-1].split("ImageError: ")[-1] if lines[0].startswith("Caught") else lines[0]
