"""Downloads that continue where they were cut off, with progress, retries and checksums."""

import hashlib
import os
import shutil
import time
from pathlib import Path

import requests
from tqdm import tqdm

RETRIED = (429, 500, 502, 503, 504)
ATTEMPTS = 6


class FetchError(RuntimeError):
    """A file could not be had; the message says from where and why, in one line."""


def fetch(url: str, target: Path, md5: str = "", sha256: str = "", pause: float = 2.0, most: int = 2**40) -> Path:
    """Downloads `url` to `target`, continuing `target`.part; the file appears under its name only whole and checked.

    most: the largest accepted size in bytes. Busy and failing servers are retried up to six times without progress,
    after `pause` seconds, doubled each time.
    Raises FetchError.
    """
    partial = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            if _continue(url, partial, most):
                break
            reason, wait = "the connection was cut off", 0.0
        except _Busy as busy:
            reason, wait = str(busy), busy.wait
        except requests.RequestException as error:
            reason, wait = f"{type(error).__name__}", 0.0
        progressed = partial.exists() and partial.stat().st_size > before
        failures = 0 if progressed else failures + 1
        if failures >= ATTEMPTS:
            raise FetchError(f"{url}: {reason}, {ATTEMPTS} times without progress")
        time.sleep(max(wait, pause * 2 ** max(0, failures - 1)))
    check(partial, url, md5, sha256)
    partial.replace(target)
    return target


class _Busy(Exception):
    """The server asks to retry later."""

    def __init__(self, status: int, wait: float) -> None:
        super().__init__(f"the server answered {status}")
        self.wait = wait


def _continue(url: str, partial: Path, most: int) -> bool:
    """Fetches what `partial` lacks; whether it is complete now."""
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
        if answer.status_code == 416:  # no bytes left: the file is complete, or has changed
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(have):
                return True
            partial.unlink()
            return False
        if answer.status_code in RETRIED:
            wait = answer.headers.get("Retry-After", "")
            raise _Busy(answer.status_code, min(float(wait), 300.0) if wait.isdigit() else 0.0)
        if answer.status_code >= 400:
            raise FetchError(f"{url}: the server answered {answer.status_code} {answer.reason}")
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise FetchError(f"{url}: the server sent a web page instead of the file (a quota, or a log-in)")
        continues = answer.status_code == 206
        start = have if continues else 0
        length = answer.headers.get("Content-Length")
        total_bytes = start + int(length) if length else None
        if (total_bytes or start) > most:
            partial.unlink(missing_ok=True)
            raise FetchError(
                f"{url}: the server has {total_bytes or start} bytes for a file of at most {most}; removed"
            )
        if total_bytes:
            require_space(partial.parent, total_bytes - start, url)
        answer.raw.enforce_content_length = False  # keep what came before a cut; the size is compared below
        label = partial.name.removesuffix(".part")
        with open(partial, "ab" if continues else "wb") as file, tqdm(
            total=total_bytes, initial=start, desc=label, unit="B", unit_scale=True, unit_divisor=1024
        ) as bar:  # fmt: skip
            for piece in answer.iter_content(2**18):
                file.write(piece)
                bar.update(len(piece))
                if file.tell() > most:
                    partial.unlink()
                    raise FetchError(f"{url}: the server sends more than {most} bytes and does not end; removed")
            file.flush()
            os.fsync(file.fileno())
    size = partial.stat().st_size
    return total_bytes is None or size == total_bytes


def fetch_drive(url: str, target: Path) -> Path:
    """The same for Google Drive, with gdown (which knows its confirmation pages). Raises FetchError."""
    import gdown

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    try:
        done = gdown.download(url=url, output=str(partial), quiet=False, resume=True, use_cookies=False)
    except Exception as error:  # gdown raises what it likes: its own errors, requests', RuntimeError, OSError
        raise FetchError(f"{url}: {str(error).strip().splitlines()[0] if str(error).strip() else error!r}") from error
    if done is None or not partial.is_file():
        raise FetchError(f"{url}: Google Drive did not give the file")
    with open(partial, "rb") as file:
        if file.read(64).lstrip().lower().startswith((b"<!doctype", b"<html")):
            partial.unlink()
            raise FetchError(
                f"{url}: Google Drive sent a web page instead of the file (its quota?); try again tomorrow"
            )
    partial.replace(target)
    return target


def check(file: Path, origin: str, md5: str = "", sha256: str = "") -> None:
    """Compares a file with its published checksum, if any. Raises FetchError, and removes the file, when they differ."""
    for kind, expected in (("md5", md5), ("sha256", sha256)):
        if expected and (found := digest(file, kind)) != expected:
            file.unlink()
            raise FetchError(f"{origin}: its {kind} is {found}, but should be {expected}; removed")


def digest(file: Path, kind: str = "sha256") -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raises FetchError if `folder`'s disk has no room for `needed` bytes more."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FetchError(
            f"{what} needs {needed / 2**30:.1f} GiB, but {folder} has {free / 2**30:.1f} GiB free: make room, or use --root"
        )
