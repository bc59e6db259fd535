"""Where this project lies."""

import importlib.metadata
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def version() -> str:
    """This project's version: a checkout's own, or that of the installed package."""
    file = ROOT / "pyproject.toml"
    if file.is_file() and (ROOT / "train.py").is_file():
        return tomllib.loads(file.read_text())["project"]["version"]
    return importlib.metadata.version("mocoop")
