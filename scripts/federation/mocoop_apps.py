"""The apps that Flower takes to a SuperLink and its SuperNodes; each has a checkout, installed by pip install -e ."""

import os
import shlex
import sys

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from mocoop.paths import ROOT

sys.path.insert(0, str(ROOT))
import train
from trainers.core.federated import flower

client = flower.client_app
server = ServerApp()


@server.main()
def serve(grid: Grid, context: Context) -> None:
    """A run of train.py, with the words of the run's configuration, whose clients are the grid's nodes."""
    flower.given.append(grid)
    os.chdir(ROOT)
    sys.argv = ["train.py", *shlex.split(str(context.run_config["words"]))]
    train.main()
