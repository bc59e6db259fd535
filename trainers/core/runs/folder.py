"""The folder of a run: the process working in it, the run's identity, and whether it is finished.

run.json holds the identity, the request (protocol, part, dataset, ...) and the command. It is written first.
results.json is written last, whole: a run is finished when it is there.
"""

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import files
from .files import CHECKPOINTS
from .identity import Identity
from .results import read_results

_INCOMING = ".incoming"
ELSEWHERE = "choose another --output-dir (with the scripts: TAG=name or OUTPUT=folder)"


class RunFolder:
    """OUTPUT_DIR of one run. Raises ValueError, in one line, for whatever would mix two runs."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.results_file = self.path / "results.json"

    def results(self) -> dict[str, Any] | None:
        """What results.json says, or None while the run is not finished."""
        try:
            return read_results(self.results_file)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(
                f"{self.results_file} is damaged ({error}): remove it, and the run is evaluated again"
            ) from None

    def about(self) -> dict[str, Any]:
        """What run.json says; of an older run, what its config.json or results.json tell; empty where nothing does."""
        for name in ("run.json", "config.json"):
            file = self.path / name
            if not file.is_file():
                continue
            try:
                found = json.loads(file.read_text())
            except (ValueError, RecursionError):
                raise ValueError(f"{file} is damaged: remove {self.path}, or {ELSEWHERE}") from None
            return found if name == "run.json" and isinstance(found, dict) else {"identity": found}
        return {}

    def identity(self) -> Identity | None:
        """What run this folder holds, if any has begun. Raises ValueError when that cannot be told."""
        if not self.begun():
            return None
        record = self.about().get("identity")
        if record is None:
            record = (self.results() or {}).get("config")
        if record is None:
            raise ValueError(
                f"{self.path} holds checkpoints of a run that it no longer describes (run.json is missing or empty): "
                f"remove the folder, or {ELSEWHERE}"
            )
        try:
            return Identity.of(record)
        except ValueError as error:
            raise ValueError(f"{self.path / 'run.json'}: {error}: remove the folder, or {ELSEWHERE}") from None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes out while inside, and begins with what a killed one left half-written removed."""
        with files.held(self.path, f"wait for it, or {ELSEWHERE}"):
            self._clear_halves()
            yield

    def _clear_halves(self) -> None:
        """Removes what a killed process was writing or copying; nobody else works here now."""
        shutil.rmtree(self.path / _INCOMING, ignore_errors=True)
        for file in (*self.path.glob(".*"), *(self.path / CHECKPOINTS).glob(".*")):
            if re.fullmatch(r"\..+\.\d+", file.name):
                file.unlink(missing_ok=True)

    def begun(self) -> bool:
        """Whether there is anything here that another run could be mixed up with."""
        return self.results_file.exists() or any((self.path / CHECKPOINTS).glob("[!.]*"))

    def refuse_other(self, identity: Identity) -> None:
        """Raises ValueError, naming the differences, when the folder holds another run than `identity`."""
        theirs = self.identity()
        differing = identity.differences(theirs) if theirs else []
        if differing:
            shown = "; ".join(differing[:5])
            raise ValueError(f"{self.path} holds another run ({shown}): {ELSEWHERE}")

    def claim(self, identity: Identity, about: dict[str, Any]) -> None:
        """Notes what run this is, or refuses when the folder holds another one."""
        self.refuse_other(identity)
        theirs = self.identity()
        if theirs is not None and theirs.data and not theirs.contents:
            print(f"Note: {self.path} {theirs.left_unsaid()}")
            identity = dataclasses.replace(identity, contents={})  # nobody knows what they held then
        record = about | {"identity": identity.record()}
        files.write_atomically(self.path / "run.json", json.dumps(record, indent=1, sort_keys=True).encode())

    def take_over(self, other: str | Path, identity: Identity, about: dict[str, Any]) -> bool:
        """Copies the finished run of another folder if it has the same identity, unless work has begun here. Returns
        whether it did.

        The copy grows in a folder of its own; the trained model then comes here in one rename, results.json last.
        """
        source = RunFolder(other)
        if self.begun() or not source.results_file.is_file():
            return False
        theirs, results = source.identity(), source.results()
        if theirs is None or results is None or not theirs.data or identity.differences(theirs):
            return False
        incoming = self.path / _INCOMING
        shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)
        shutil.copytree(other, incoming, ignore=shutil.ignore_patterns(".*", "run.json", "config.json", "results.json"))
        self.claim(identity, about)
        for entry in sorted(incoming.iterdir(), key=lambda path: path.name == CHECKPOINTS):
            target = self.path / entry.name
            if target.is_dir():
                shutil.rmtree(target)
            entry.replace(target)
        incoming.rmdir()
        self.finish(results | {"taken_from": str(other)})
        return True

    def finish(self, results: dict[str, Any]) -> None:
        files.write_atomically(self.results_file, json.dumps(results, indent=1, allow_nan=False).encode())
