"""steps.jsonl of a run, a JSON object for each step and each evaluation; and Weights & Biases, where LOG asks for it."""

import contextlib
import json
import os
import secrets
import time
from pathlib import Path
from typing import IO, Any

from ..runs.files import write_atomically
from ..settings.errors import one_line

NAME = "steps.jsonl"
WANDB_ID = "wandb_id"  # in a run's folder, so that a run that goes on is the same at Weights & Biases


class StepLog:
    """Lines are added to what is there. A run that was killed takes some steps again: the last line of a step counts."""

    def __init__(self, folder: Path, settings: dict[str, Any], to_wandb: bool) -> None:
        """settings: the run's configuration, for Weights & Biases. Raises ValueError where that cannot be reached."""
        folder.mkdir(parents=True, exist_ok=True)
        self._wandb = _wandb_run(folder, settings) if to_wandb else None
        self._file: IO[str] | None = open(folder / NAME, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, **values: float | str) -> None:
        """Adds a line; `step` counts from the beginning of training."""
        if self._file is None:
            return
        self._file.write(json.dumps({"time": round(time.time(), 3), **values}) + "\n")
        self._file.flush()
        if self._wandb is not None:
            prefix = values.get("split", "train")
            numbers = {f"{prefix}/{name}": value for name, value in values.items() if name not in ("step", "split")}
            self._wandb.log(numbers, step=int(values["step"]))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None


def _wandb_run(folder: Path, settings: dict[str, Any]) -> Any:
    import wandb  # an extra; configure.py has looked for it

    file = folder / WANDB_ID
    if not file.is_file():
        write_atomically(file, secrets.token_hex(4).encode())
    usual = {"WANDB_PROJECT": "mocoop", "WANDB_NAME": "/".join(folder.absolute().parts[-5:])}
    project, name = (os.environ.get(word) or own for word, own in usual.items())
    try:
        with contextlib.chdir(folder):  # it looks for git and settings where it is started
            return wandb.init(
                project=project, id=file.read_text().strip(), resume="allow", dir=".", config=settings, name=name,
                settings=wandb.Settings(silent=True, console="off"),
            )  # fmt: skip
    except wandb.errors.Error as error:
        raise ValueError(f"Weights & Biases: {one_line(error)}: wandb login, or WANDB_MODE=offline") from None
