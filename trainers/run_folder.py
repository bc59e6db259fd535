"""The folder of a run: who works in it, which configuration it belongs to, and when it is finished.

A run is finished when results.json is there; it is written last, whole, and names the configuration.
"""

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from . import checkpoints, files

# Settings that change where, how fast or how loudly a run goes, but not what comes out of it.
_IMMATERIAL = (
    "OUTPUT_DIR", "RESUME", "VERBOSE", "DATASET.ROOT", "DATALOADER.NUM_WORKERS", "DATALOADER.CACHE_MB",
    "TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ", "TRAIN.CHECKPOINT_MINUTES", "MODEL.TEXT_CHUNK", "MODEL.TEXT_MEMORY_MB",
)  # fmt: skip


def material_settings(cfg: CfgNode, trainer_key: str) -> dict[str, Any]:
    """The configuration as one flat dictionary, without what does not bear on the result."""
    flat: dict[str, Any] = {}

    def collect(node: CfgNode, prefix: str) -> None:
        for key, value in node.items():
            name = f"{prefix}{key}"
            if isinstance(value, CfgNode):
                if prefix != "TRAINER." or key == trainer_key:
                    collect(value, f"{name}.")
            elif name not in _IMMATERIAL:
                flat[name] = list(value) if isinstance(value, tuple) else value

    collect(cfg, "")
    return flat


def settings_hash(settings: dict[str, Any]) -> str:
    """SHA-256 of the settings; equal for runs that must give equal results."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


class RunFolder:
    """OUTPUT_DIR of one run. Raises ValueError, in one line, for whatever would mix two runs."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.results_file = self.path / "results.json"

    def results(self) -> dict[str, Any] | None:
        """What results.json says, or None while the run is not finished."""
        try:
            return json.loads(self.results_file.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            raise ValueError(f"{self.results_file} is damaged: remove it, and the run is evaluated again") from None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes out while inside, and begins with what a killed one left half-written removed."""
        with files.held(self.path, "wait for it, or choose another --output-dir"):
            self._clear_halves()
            yield

    def _clear_halves(self) -> None:
        """Removes what a killed process was writing (write_atomically's own names); nobody else works here now."""
        for file in (*self.path.glob(".*"), *(self.path / checkpoints.FOLDER).glob(".*")):
            if re.fullmatch(r"\..+\.\d+", file.name):
                file.unlink()

    def _begun(self) -> bool:
        return self.results_file.is_file() or checkpoints.latest(self.path) is not None

    def claim(self, settings: dict[str, Any]) -> None:
        """Notes the configuration, or refuses when the folder holds checkpoints or results of another one."""
        file = self.path / "config.json"
        if file.is_file() and self._begun():
            theirs = json.loads(file.read_text())
            if theirs != json.loads(json.dumps(settings)):
                keys = sorted(k for k in theirs.keys() | settings.keys() if theirs.get(k) != settings.get(k))
                shown = "; ".join(f"{k} was {theirs.get(k)!r}, now {settings.get(k)!r}" for k in keys[:5])
                raise ValueError(f"{self.path} holds a run with other settings ({shown}): choose another --output-dir")
            return
        files.write_atomically(file, json.dumps(settings, indent=1, sort_keys=True).encode())

    def take_over(self, other: str | Path, digest: str) -> bool:
        """Copies another folder's finished run of the same settings, unless work has begun here; whether it did."""
        theirs = RunFolder(other).results()
        if theirs is None or theirs.get("config_sha256") != digest or self._begun():
            return False
        unfinished = shutil.ignore_patterns(".*", self.results_file.name)
        shutil.copytree(other, self.path, ignore=unfinished, dirs_exist_ok=True)
        self.finish(theirs)
        return True

    def finish(self, results: dict[str, Any]) -> None:
        files.write_atomically(self.results_file, json.dumps(results, indent=1).encode())
