"""Unpacks archives safely: nothing outside the folder, no links, no devices."""

import errno
import json
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from .fetch import require_space

# Pictures hardly compress. An archive that grows more than this is not data but an attack on the disk.
LARGEST_GROWTH, ALWAYS_ALLOWED = 20, 2**26  # times the archive's size; bytes


class UnpackError(RuntimeError):
    """An archive is damaged, hostile, or not one at all; the message says which, in one line."""


# what unpacking meets where a file's name is also a folder's, or no system takes it
_OF_ITS_NAMES = (errno.EINVAL, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a tar (of any compression) or zip archive into `folder`, which appears when that is done.

    Raises UnpackError, leaving nothing behind, for absolute paths, "..", links, devices, damage and other files; and
    FetchError when the disk has no room.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, partial)
        elif tarfile.is_tarfile(archive):
            _untar(archive, partial)
        else:
            raise UnpackError(f"{archive} is no archive: remove it, and it is fetched again")
        partial.rename(folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError) as error:
        raise UnpackError(f"{archive} is damaged ({error}): remove it, and it is fetched again") from error
    except OSError as error:
        if error.errno not in _OF_ITS_NAMES and str(error) != "Invalid data stream":
            raise
        raise UnpackError(f"{archive} cannot be unpacked ({error}): remove it, and it is fetched again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_unsafe(archive: Path, name: str, special: bool) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable() or special:
        raise UnpackError(
            f"{archive} holds {json.dumps(name)}, which a dataset has no business to hold: nothing was unpacked"
        )


def _refuse_bomb(archive: Path, unpacked: int) -> None:
    if unpacked > max(ALWAYS_ALLOWED, LARGEST_GROWTH * archive.stat().st_size):
        raise UnpackError(
            f"{archive} unpacks to {unpacked} bytes or more, over {LARGEST_GROWTH} times its size: refused"
        )


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        members = source.infolist()
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            _refuse_unsafe(archive, member.filename, kind not in (0, stat.S_IFREG, stat.S_IFDIR))
        unpacked = sum(m.file_size for m in members)
        _refuse_bomb(archive, unpacked)
        require_space(folder, unpacked, str(archive))
        for member in tqdm(members, desc=f"Unpacking {archive.name}", unit="file"):
            source.extract(member, folder)


def _untar(archive: Path, folder: Path) -> None:
    require_space(folder, archive.stat().st_size, str(archive))  # pictures hardly shrink
    with tarfile.open(archive) as source:
        unpacked = 0
        for member in tqdm(source, desc=f"Unpacking {archive.name}", unit="file"):
            unpacked += member.size
            _refuse_bomb(archive, unpacked)
            _refuse_unsafe(archive, member.name, not (member.isfile() or member.isdir()))
            source.extract(member, folder, filter="data")


def find(folder: Path, name: str) -> Path | None:
    """The path below `folder` that ends in `name`, the least deep one; archives wrap their content differently."""
    wanted = PurePosixPath(name).parts
    found = [p for p in folder.rglob(wanted[-1]) if p.parts[-len(wanted) :] == wanted]
    return min(found, key=lambda p: (len(p.parts), p)) if found else None
