"""Where this project lies, and what folders are meant from there."""

import importlib.metadata
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def from_project(given: str | None, default: str) -> Path:
    """A folder as an argument for train.py, which runs in the project folder; `given` is relative to the user's
    folder."""
    if given is None:
        return Path(default) if Path.cwd() == ROOT else ROOT / default
    return Path(given) if Path.cwd() == ROOT else Path(given).absolute()


def version() -> str:
    """This project's version: a checkout's own, or that of the installed package."""
    file = ROOT / "pyproject.toml"
    if file.is_file() and (ROOT / "train.py").is_file():
        return tomllib.loads(file.read_text())["project"]["version"]
    return importlib.metadata.version("mocoop")
