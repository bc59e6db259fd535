"""SHA-256 digests of files, computed once and looked up afterwards by file metadata.

Path, size and times do not identify a file: folders are swapped, links are changed, images are mounted with fixed
times. A digest is reused only while device, inode, size and change time are the same, on file systems that record the
change time. Nobody can set the change time back.
"""

import contextlib
import errno
import functools
import hashlib
import os
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from yacs.config import CfgNode

from ..ranks.processes import cores
from .array_cache import MB, ArrayCache, default_folder, key_of

AT_A_TIME = 2000  # digests that are noted
SETTLED = 2.0  # seconds after which file systems give a file that is written again another time
KEEPING_TIMES = {
    "apfs", "bcachefs", "beegfs", "btrfs", "ceph", "ext2", "ext3", "ext4", "f2fs", "gpfs", "jfs", "lustre", "nfs", "nfs4",
    "overlay", "reiserfs", "tmpfs", "virtiofs", "xfs", "zfs",
}  # fmt: skip

State = tuple[Any, ...]


class Contents:
    """Digests of files. root, limit: of the cache that keeps them for other runs, as in ArrayCache."""

    def __init__(self, root: Path, limit: int) -> None:
        self.kept = ArrayCache(root, {"holds": "hashes", "of": "SHA-256 of whole files"}, limit)
        self._known: dict[State, bytes] = {}

    def of(self, path: str) -> bytes:
        """The digest of one file, 32 bytes. Raises OSError for one that is not there."""
        state = _state(path)
        return self._looked_up(path, state) or self._read(path, state)

    def of_all(self, paths: Sequence[str]) -> list[bytes]:
        """The same for many, those that have to be read by all cores; noted for other runs."""
        states = [_state(path) for path in paths]
        found = [self._looked_up(path, state) for path, state in zip(paths, states, strict=True)]
        left = [i for i, digest in enumerate(found) if digest is None]
        with ThreadPoolExecutor(cores()) as pool:  # reading and hashing release Python's lock
            digests = pool.map(lambda i: self._read(paths[i], states[i]), left)
            shown = tqdm(
                digests, "Looking at pictures for the first time", len(left), leave=False, disable=None, delay=2
            )
            some: list[int] = []
            for i, digest in zip(left, shown, strict=True):
                found[i] = digest
                some.append(i)
                if len(some) == AT_A_TIME or i == left[-1]:  # hours of reading are not lost with the process
                    self.kept.put(
                        (key_of(*states[j]), np.frombuffer(self._known[states[j]], np.uint8))
                        for j in some
                        if states[j] in self._known and _keeps_times(paths[j])
                    )
                    some = []
        return [digest for digest in found if digest is not None]

    def key(self, path: str, upright: bool) -> bytes:
        """The cache key of a decoded picture: its file's digest, and whether it is rotated by EXIF. Empty for a missing
        file, and for a file written so recently that another change might go unnoticed."""
        try:
            if not _is_settled(_state(path)):
                return b""
            return key_of(self.of(path).hex(), upright)
        except OSError:
            return b""  # whoever reads it will say so

    def _looked_up(self, path: str, state: State) -> bytes | None:
        known = self._known.get(state)
        if known is None and _keeps_times(path):
            array = self.kept.get(key_of(*state))
            if array is not None:
                known = self._known[state] = array.tobytes()
        return known

    def _read(self, path: str, state: State) -> bytes:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "is no file", path)  # a pipe would be waited for
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        if _is_settled(state) and _state(path) == state:
            self._known[state] = digest
        return digest


@functools.lru_cache(maxsize=4)
def _contents(root: Path, limit: int) -> Contents:
    return Contents(root, limit)


def contents_for(cfg: CfgNode) -> Contents:
    """Of the cache that a configuration names, one for a process."""
    return _contents(cache_root(cfg), cfg.CACHE.LIMIT_MB * MB)


def cache_root(cfg: CfgNode) -> Path:
    return Path(os.path.expanduser(cfg.CACHE.FOLDER)) if cfg.CACHE.FOLDER else default_folder()


def _state(path: str) -> State:
    """File metadata that change when the file at `path` is replaced or written."""
    s = os.stat(path)
    return os.path.abspath(path), s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns


def _is_settled(state: State) -> bool:
    return abs(time.time() - max(state[-2:]) / 1e9) >= SETTLED


@functools.cache
def _keeps_times_in(folder: str) -> bool:
    """Whether the folder's file system records the change time of files. True if the table of file systems cannot be
    read."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return True
    best, kind = "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        with contextlib.suppress(IndexError):
            octal = before.split()[4].encode(errors="surrogateescape").decode("unicode_escape")  # of spaces
            place = os.fsdecode(octal.encode("latin-1"))
            if os.path.commonpath([place, folder]) == place and len(place) >= len(best):
                best, kind = place, after.split()[0]
    return kind in KEEPING_TIMES


def _keeps_times(path: str) -> bool:
    return _keeps_times_in(os.path.dirname(os.path.realpath(path)))
