"""Runs of train.py with one rank or several, forked from one process that has loaded everything, in float64 if asked.

    python tests/run_ranks.py CASES.json

CASES: a list of {"ranks": 3, "words": [...], "double": true, "losses": "FILE"}; FILE takes what each step shows, from rank
0, in full precision. Prints the exit statuses of each case's ranks.
"""

import json
import os
import sys
from pathlib import Path

from conftest import noting_steps

import train
from harness.launcher import environments
from trainers import methods
from trainers.core.training.trainer import PromptTrainer


class Written(list):
    """What each step shows, in a file from the first step on: one of several ranks ends without coming back."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)

    def append(self, shown: dict[str, float]) -> None:
        super().append(shown)
        if os.environ.get("RANK", "0") == "0":
            self.path.write_text(json.dumps(self))


def run(case: dict) -> None:
    """This process as one rank of a case."""
    losses = Written(case["losses"])
    for name, function in noting_steps(losses, in_float64=case.get("double", False)).items():
        setattr(PromptTrainer, name, function)
    sys.argv = ["train.py", *case["words"]]
    train.main()


def main() -> None:
    methods.register_all()
    statuses = []
    for case in json.loads(Path(sys.argv[1]).read_text()):
        children = []
        for own in environments(case["ranks"]):
            child = os.fork()
            if child == 0:
                os.environ |= own
                status = 0
                try:
                    run(case)
                except SystemExit as ended:
                    status = ended.code
                except BaseException as error:  # noqa: BLE001  (a forked process must not go on as its parent)
                    print(repr(error), file=sys.stderr)
                    status = 99
                sys.stdout.flush()
                os._exit(status)
            children.append(child)
        statuses.append([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
    print(json.dumps(statuses))


if __name__ == "__main__":
    main()
