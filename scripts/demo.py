"""The main job on data that the project draws itself, few-shot and base-to-new, one seed: zero-shot CLIP, the template
groups alone, and MoCoOp."""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout's code, whatever else is installed

from trainers.core.settings.errors import program, waited_for
from trainers.paths import ROOT

NEXT = """
Next, with the environment that was made (. .venv/bin/activate):
    python predict.py {}/fewshot/demo/shots_16/MoCoOp/small/seed1 data/drawn/styled/images/bird --sheet found.html
    python scripts/compare.py path/to/pictures 16      # your own, a folder for each class
    bash scripts/mocoop/main.sh dtd 16                 # a benchmark: python scripts/prepare_data.py dtd fetches it"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "demo", help="folder of the runs")
    output = parser.parse_args().output.absolute()
    settings = ["--output", str(output), "--seeds", "1", "--jobs", str(min(2, os.cpu_count() or 1)), "--no-table"]
    for protocol in (["main", "demo", "16"], ["base2new", "demo"]):
        command = [sys.executable, str(ROOT / "scripts" / "run.py"), "zsclip,hard_mixture,mocoop", *protocol, *settings]
        status = waited_for(command, cwd=ROOT)
        if status:
            return status
    status = waited_for([sys.executable, str(ROOT / "parse_results.py"), str(output)], cwd=ROOT)
    if not status:
        print(NEXT.format(output.relative_to(ROOT) if output.is_relative_to(ROOT) else output))
    return status


if __name__ == "__main__":
    sys.exit(program(main))
