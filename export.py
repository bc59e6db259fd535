"""Writes a trained run as a folder that needs nothing of this project, see --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # this checkout's code, whatever else is installed

from trainers.core.inference.export_command import main
from trainers.core.settings.errors import program

if __name__ == "__main__":
    sys.exit(program(main))
