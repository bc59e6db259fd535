"""Which method suits these pictures: several methods on one dataset or folder, see --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout's code, whatever else is installed

from harness.compare import main
from trainers.core.settings.errors import program

if __name__ == "__main__":
    sys.exit(program(main))
