"""Runs of train.py with one rank or several, forked from one process that has loaded everything, in float64 if asked.

    python tests/run_ranks.py CASES.json

CASES: a list of {"ranks": 3, "words": [...], "double": true, "losses": "FILE"}; FILE takes what each step shows, from rank
0, in full precision. Prints the exit statuses of each case's ranks.
"""

import json
import os
import socket
import sys
from pathlib import Path

from conftest import in_double

import train
from trainers.core import methods
from trainers.core.trainer import PromptTrainer


def run(case: dict) -> None:
    """This process as one rank of a case."""
    step, load, finish = PromptTrainer.forward_backward, PromptTrainer.load_clip, PromptTrainer.finish_model
    losses = []

    def noted(self, batch):
        shown = step(self, batch)
        losses.append({name: float(value) for name, value in shown.items()})
        return shown

    def doubled(self):
        backbone = load(self)
        in_double(backbone.model)
        return backbone

    def finished(self, *args, **options):
        self.model.double()
        finish(self, *args, **options)

    PromptTrainer.forward_backward = noted
    if case.get("double"):
        PromptTrainer.load_clip, PromptTrainer.finish_model = doubled, finished
    sys.argv = ["train.py", *case["words"]]
    try:
        train.main()
    finally:
        if os.environ["RANK"] == "0":
            Path(case["losses"]).write_text(json.dumps(losses))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    methods.register_all()
    statuses = []
    for case in json.loads(Path(sys.argv[1]).read_text()):
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(case["ranks"])}
        children = []
        for rank in range(case["ranks"]):
            child = os.fork()
            if child == 0:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
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
