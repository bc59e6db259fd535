"""Test pictures that are nearly the same as training pictures, see --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout's code, whatever else is installed

import trainers  # noqa: F401  (makes `dassl` importable)
from harness.near_duplicates import main
from trainers.core.settings.errors import program

if __name__ == "__main__":
    sys.exit(program(main))
