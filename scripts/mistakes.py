"""A run's surest mistakes as a page, see --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout's code, whatever else is installed

from trainers.core.inference.mistakes_page import main
from trainers.core.settings.errors import program

if __name__ == "__main__":
    sys.exit(program(main))
