"""A cache on disk that runs share: pictures, features of frozen encoders, features of hard templates.

A cache saves time and changes no result. Everything that determines an array is in `about`, which names the folder, or
in the array's key. An array that is read is used only if its SHA-256, over `about`, key, shape, kind and bytes, is the
one stored with it. Whatever is wrong with the cache (cut, damaged, full, read-only, locked by another process), the run
computes the values itself and reports the reason.

A folder holds about.json, index (one record per array) and arrays (their bytes, one after the other). Both only grow,
under a lock, arrays first. Readers take no lock. Nothing is memory-mapped: if a mapped file is truncated, the process
dies, while a short read only means a missing array. Processes share the kernel's page cache either way.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from ..runs.files import user_cache, write_atomically

FORMAT = 1
MB = 2**20
STEP = 32 * MB  # added before it is looked again what others have added meanwhile
OFF = "CACHE.LIMIT_MB is 0"
PATIENCE = 10.0  # seconds to wait for another process that is writing
INDEX = np.dtype([("key", "V32"), ("proof", "V16"), ("offset", "<u8"), ("size", "<u8"), ("shape", "<u4", 4),
                  ("dimensions", "<u4"), ("kind", "S4")])  # fmt: skip


def default_folder() -> Path:
    """MOCOOP_CACHE, or mocoop/ in the user's cache."""
    named = os.environ.get("MOCOOP_CACHE")
    return Path(named) if named else user_cache()


def key_of(*parts: Any) -> bytes:
    """32 bytes that stand for `parts`, which JSON can write."""
    return hashlib.sha256(json.dumps(parts).encode()).digest()


class ArrayCache:
    """The arrays of one kind.

    root: folder of all caches. about: everything that determines the arrays, except their keys; "holds" names the kind.
    limit: bytes that all caches below `root` may take together; they never take more than half of the free disk space.
    Never raises for a problem with the disk: `trouble` then says why nothing is cached.
    """

    def __init__(self, root: Path, about: dict[str, Any], limit: int) -> None:
        text = json.dumps({"format": FORMAT} | about, indent=1, sort_keys=True)
        self._files: dict[str, int] = {}
        self._salt = hashlib.sha256(text.encode()).digest()
        self.folder = root / str(about["holds"]) / self._salt.hex()[:24]
        self.trouble = "" if limit > 0 else OFF
        if not hasattr(os, "pread"):  # Windows
            self.trouble = "this system has no pread"
        self.damaged = 0  # arrays that were not what had been put in
        self.added = 0  # bytes put in by this object
        self._said = ""
        self._root, self._limit = root, limit
        self._rows: dict[bytes, np.void] = {}
        self._seen = 0  # bytes of the index that were read
        self._largest = 0  # bytes that the arrays may come to
        if self.trouble:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for place in (self.folder.parent, self.folder):  # `root` may be anybody's, /tmp say
                _make_ours(place)
            if not self._is_described(text):
                write_atomically(self.folder / "about.json", text.encode())
            for name in ("index", "arrays"):
                self._files[name] = _opened(self.folder / name, os.O_RDWR | os.O_CREAT)
            self._measure()
        except OSError as error:
            self._stop(error)
            self._open_for_reading()
        with contextlib.suppress(OSError):
            self._refresh()

    def _measure(self) -> None:
        """Measures the space that other caches and the disk leave for the next arrays."""
        left = min(self._limit - used(self._root), shutil.disk_usage(self._root).free // 2)
        self._largest = self._size("arrays") + min(max(0, left), STEP)

    def __getstate__(self) -> dict[str, Any]:
        """For a process that is not forked: descriptors mean something else there."""
        return self.__dict__ | {"_files": {}, "_rows": {}, "_seen": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.trouble = self.trouble or "opened for reading"
        self._open_for_reading()
        with contextlib.suppress(OSError):
            self._refresh()

    def _is_described(self, text: str) -> bool:
        try:
            descriptor = _opened(self.folder / "about.json", os.O_RDONLY)
        except OSError:
            return False
        with open(descriptor, "rb") as file:
            return file.read() == text.encode()

    def _open_for_reading(self) -> None:
        """What others kept can be used where nothing can be added."""
        self._close()
        with contextlib.suppress(OSError):
            for name in ("index", "arrays"):
                self._files[name] = _opened(self.folder / name, os.O_RDONLY)
        if len(self._files) < 2:
            self._close()

    def _close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def __del__(self) -> None:
        self._close()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def is_of_use(self) -> bool:
        """Whether anything is kept, or can be."""
        return not self.trouble or bool(self._rows)

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def get(self, key: bytes) -> np.ndarray | None:
        """The array stored under `key`, or None if there is none or its digest does not match."""
        row = self._rows.get(key)
        if row is None:
            return None
        content = self._read("arrays", int(row["size"]), int(row["offset"]))
        shape = tuple(int(n) for n in row["shape"][: row["dimensions"]])
        kind = row["kind"].decode(errors="replace")
        if self._proof(key, shape, kind, content) != row["proof"].tobytes():
            del self._rows[key]
            self.damaged += 1
            return None
        return np.frombuffer(content, kind).reshape(shape)

    def put(self, arrays: Iterable[tuple[bytes, np.ndarray]]) -> int:
        """Keeps arrays of up to four dimensions under their keys; how many were new."""
        wanted = [(key, array) for key, array in arrays if key not in self._rows]
        if not wanted or self.trouble:
            return 0
        try:
            with FileLock(self.folder / ".lock", timeout=PATIENCE):
                if os.stat(self.folder / "index").st_ino != os.fstat(self._files["index"]).st_ino:
                    raise FileNotFoundError(errno.ENOENT, "it was cleared meanwhile")
                self._refresh()  # another process may have been faster
                return sum(self._append(key, array) for key, array in wanted if key not in self._rows)
        except Timeout:
            self._stop("another process holds its lock")
        except (OSError, NotImplementedError) as error:  # a file system without locks
            self._stop(error if isinstance(error, OSError) else str(error))
        return 0

    def told(self) -> str:
        """A line, given once, on why the cache could not save time; empty if there was no problem."""
        more = "nothing more" if self._files else "nothing"
        parts = [f"{more} is kept in {self.folder}: {self.trouble}"] if self.trouble not in ("", OFF) else []
        parts += [f"{self.damaged} arrays in {self.folder} were damaged and made again"] if self.damaged else []
        text = "; ".join(parts)
        news, self._said = text if text != self._said else "", text
        return f"Note: {news}" if news else ""

    # --- files ---------------------------------------------------------------------------------------------------------

    def _append(self, key: bytes, array: np.ndarray) -> bool:
        if self.trouble:
            return False
        content = np.ascontiguousarray(array).tobytes()
        end = self._size("arrays")
        if end + len(content) > self._largest:
            self._measure()
        if end + len(content) > self._largest:
            self._stop(
                "the limit is reached (CACHE.LIMIT_MB, or half of what was free): python scripts/caches.py shows all"
            )
            return False
        row = np.zeros((), INDEX)
        kind = array.dtype.str
        proof = self._proof(key, array.shape, kind, content)
        row["key"], row["proof"], row["offset"], row["size"] = np.void(key), np.void(proof), end, len(content)
        row["shape"][: array.ndim], row["dimensions"], row["kind"] = array.shape, array.ndim, kind.encode()
        whole = self._size("index") // INDEX.itemsize * INDEX.itemsize  # a killed writer may have left half a record
        try:
            self._write("arrays", content, end)
            self._write("index", row.tobytes(), whole)
        except OSError:
            os.ftruncate(self._files["arrays"], end)
            os.ftruncate(self._files["index"], whole)
            raise
        self.added += len(content)
        self._rows[key] = row[()]  # type: ignore[assignment]
        self._seen = whole + INDEX.itemsize
        return True

    def _refresh(self) -> None:
        """Takes in what other processes have added to the index."""
        if not self._files:
            return
        size = self._size("index") // INDEX.itemsize * INDEX.itemsize
        if size < self._seen:
            self._rows, self._seen = {}, 0  # cut from outside
        for row in np.frombuffer(self._read("index", size - self._seen, self._seen), INDEX):
            if row["dimensions"] <= 4 and row["kind"] in _KINDS:
                self._rows[row["key"].tobytes()] = row
        self._seen = size

    def _proof(self, key: bytes, shape: tuple[int, ...], kind: str, content: bytes) -> bytes:
        digest = hashlib.sha256(self._salt + key + json.dumps([shape, kind]).encode())
        digest.update(content)
        return digest.digest()[:16]

    def _size(self, name: str) -> int:
        return os.fstat(self._files[name]).st_size

    def _read(self, name: str, size: int, offset: int) -> bytes:
        """These bytes, or none where not all of them can be read."""
        parts = []
        with contextlib.suppress(OSError):
            if size > self._size(name) - offset:
                return b""
            while size > 0 and (part := os.pread(self._files[name], size, offset)):
                parts.append(part)
                size, offset = size - len(part), offset + len(part)
        return b"".join(parts) if size == 0 else b""

    def _write(self, name: str, content: bytes, offset: int) -> None:
        view = memoryview(content)
        while view:
            written = os.pwrite(self._files[name], view, offset)
            view, offset = view[written:], offset + written

    def _stop(self, why: OSError | str) -> None:
        self.trouble = why if isinstance(why, str) else why.strerror or str(why)


def _make_ours(folder: Path) -> None:
    """Makes a folder accessible to its owner only. Raises PermissionError if it belongs to another user, since anyone
    who can write there could replace pictures."""
    status = os.stat(folder, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, os.getuid()):
        raise PermissionError(errno.EACCES, f"{folder} belongs to somebody else: set CACHE.FOLDER, or MOCOOP_CACHE")
    if status.st_mode & 0o022:
        os.chmod(folder, stat.S_IMODE(status.st_mode) & ~0o022)


def _opened(path: Path, flags: int) -> int:
    """A file that only its owner reads. Raises OSError for a link, a pipe, and a file of somebody else."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.getuid()):
        os.close(descriptor)
        raise PermissionError(errno.EACCES, f"{path} is no file of this user")
    return descriptor


_KINDS = {np.dtype(kind).str.encode() for kind in ("u1", "i2", "f2", "f4", "f8", "i8")}


def used(root: Path) -> int:
    """Bytes that all caches below `root` take."""
    total = 0
    for file in root.glob("*/*/*"):
        with contextlib.suppress(FileNotFoundError):  # cleared meanwhile
            total += file.stat().st_size
    return total
